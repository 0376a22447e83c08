# The image of a node, and of the driver: the locked packages, Ray among them, and the project.
#
#     docker build --tag tff_fedmeta .
#
# Nothing is resolved while it is built: both locks have every version and hash. For x86-64 alone, as
# TensorFlow Federated is.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 fedmeta \
    && mkdir /app && chown fedmeta /app
USER fedmeta
WORKDIR /app

# Before the sources, so that a change in these does not install again.
COPY --chown=fedmeta Makefile requirements.txt requirements-ray.txt ./
RUN make ray && rm -rf ~/.cache

COPY --chown=fedmeta . .
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONPATH=/app \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0

CMD ["python", "run_experiment.py", "--help"]
