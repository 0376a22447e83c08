"""What may be said of a table: how the file is written, and what its columns mean."""

from __future__ import annotations

import dataclasses

from datasets import options as schema
from datasets.tables import columns, csv_text, metrics, models, selection


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of a user's own file; their `option` says what each means."""

    csv: str | None = schema.option(
        None, "The file: CSV, Parquet, JSON lines or .xlsx, packed or not; a folder; or a pattern."
    )
    client_column: str | None = schema.option(
        None, "Whose row it is: a person, a home; @file: its file's name."
    )
    label_column: str | None = schema.option(None, "What is predicted.")
    feature_columns: str | None = schema.option(
        None,
        "From what, comma-separated names or patterns; all other columns if not given. A name with "
        'a comma is quoted: "a, b".',
    )
    time_column: str | None = schema.option(
        None,
        "Numbers or dates that sort a client's rows; support is then the earlier part of them. Two "
        "columns, such as date,time, are put together.",
    )
    window: int | None = schema.option(
        None, "Consecutive rows that make an example; each row is one if not given.", at_least=1
    )
    window_stride: int | None = schema.option(
        None, "Rows from the start of a window to the next; the window if not given.", at_least=1
    )
    series_column: str | None = schema.option(
        None, "Which of a client's series a row belongs to; windows stay within one."
    )
    split_column: str | None = schema.option(
        None,
        "Clients that share a value, such as the devices of a person, are in the same one of "
        "training, validation and test, and num_test_clients counts those groups; windows stay "
        "within one value.",
    )
    label_kind: str | None = schema.option(
        None,
        "If not given, text, truth values and at most "
        f"{columns.MAX_CATEGORIES} different whole numbers are classes.",
        choices=("classification", "regression"),
    )
    separator: str | None = schema.option(
        None, "What stands between cells, e.g. ; or tab or space; found out if not given."
    )
    decimal: str | None = schema.option(
        None,
        "What stands before the fraction of a number; found out if not given.",
        choices=(".", ","),
    )
    encoding: str | None = schema.option(None, "Of the text, e.g. latin-1; UTF-8 if not given.")
    no_header: bool = schema.option(
        False, "Whether the first row is data; --column_names then names the columns."
    )
    column_names: str | None = schema.option(
        None, "Names of all columns, comma-separated, instead of those in the file."
    )
    missing_values: str | None = schema.option(
        None,
        "More spellings of a missing value, comma-separated, e.g. NaN,?,-200; an empty cell, NA, "
        "N/A, NULL, null and None always are.",
    )
    time_format: str | None = schema.option(
        None, "How dates are written, e.g. %d/%m/%Y; found out if not given."
    )
    min_rows: int = schema.option(
        2, "Examples that a client needs; those with fewer are left out.", at_least=2
    )
    max_gap: float | None = schema.option(
        None,
        "Longest time between rows of a window, in the time's own unit, seconds for dates; ten "
        "times the median step if not given.",
        more_than=0,
    )
    horizon: int = schema.option(
        0,
        "How many rows after its last an example is labelled; from 1 on the label's own past can "
        "be a feature.",
        at_least=0,
    )
    exclude_columns: str | None = schema.option(
        None, "Columns that are not features; patterns such as sensor_* are taken."
    )
    categorical_columns: str | None = schema.option(
        None, "Features to take as categories, though they are numbers."
    )
    numeric_columns: str | None = schema.option(
        None, "Features to take as numbers, whatever they look like."
    )
    embedding_columns: str | None = schema.option(
        None, "Features that are ids, with thousands of values: each becomes a learnt vector."
    )
    time_features: str | None = schema.option(
        None, "Features of --time_column: hour, weekday or both, comma-separated."
    )
    day_by_day: bool = schema.option(
        False,
        "Whether test clients are also measured on each day, adapted on all days before it; needs "
        "dates in --time_column.",
    )
    class_weights: str | None = schema.option(
        None, "balanced: in the loss every class counts the same.", choices=("balanced",)
    )
    weight_column: str | None = schema.option(
        None, "What a row counts in the loss, a number >= 0; metrics count every row the same."
    )
    feature_range: float = schema.option(
        columns.RANGE,
        "Standard deviations from the mean that a feature may be; further ones count as so many, "
        "0: any.",
        at_least=0,
    )
    test_clients: str | None = schema.option(None, "Clients to test on, comma-separated.")
    validation_clients: str | None = schema.option(
        None, "Clients that choose rate and steps of adaptation, comma-separated."
    )
    metric: str | None = schema.option(
        None,
        "What decides rate and steps of adaptation and is compared; accuracy or mae if not given.",
        choices=(*metrics.OF_CLASSES, *metrics.OF_QUANTITIES),
    )
    model: str | None = schema.option(
        None,
        "If not given, mlp for rows and conv1d for windows.",
        choices=models.BUILT_IN,
    )
    normalize: bool = schema.option(
        True, "Whether a layer in front of the model standardises the features."
    )
    csv_sha256: str | None = schema.option(
        None, "SHA-256 that the file must have; a run notes it and continues on no other."
    )


def form_of(options: Options) -> csv_text.Format:
    """Returns how the user says that the file is written."""
    return csv_text.Format(
        separator=csv_text.separator_named(options.separator),
        decimal=options.decimal,
        encoding=options.encoding,
        header=not options.no_header,
        column_names=tuple(selection.listed(options.column_names)),
        missing_values=tuple(selection.listed(options.missing_values)),
    )
