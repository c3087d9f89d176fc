"""What is known of PostgreSQL's functions and operators: closed lists.

Nothing is proved of a name that stands in none of them. `tenancy` refuses such a function, since it
could read any table; whoever needs it adds it here, to the list whose promise it keeps.
"""

from typing import Literal

Kind = Literal["scalar", "aggregate", "window", "rows", "unknown"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _names(
    "= <> != < <= > >= + - * / % ^ || & | # << >> @ ~ ~~ !~~ ~~* !~~* !~ ~* !~* @> <@ && ^@"
)
"""Of what is not null they make what is not null."""

STRICT_OPERATORS = OPERATORS - {"||"}
"""Of a null they make a null; ``array || null`` does not."""

STRICT = _names(
    """
    abs age bit_length btrim cardinality ceil ceiling char_length character_length chr convert_from
    convert_to date_bin date_trunc decode div encode exp floor get_bit get_byte hashtext
    hashtextextended initcap jsonb_array_length jsonb_set jsonb_strip_nulls jsonb_typeof left
    length ln lower lpad ltrim make_date make_interval make_timestamptz md5 mod nextval normalize
    octet_length overlay position power quote_ident quote_literal repeat replace reverse right round
    rpad rtrim sha224 sha256 sha384 sha512 sign split_part sqrt starts_with strpos substr timezone
    to_hex to_jsonb to_timestamp translate trunc unistr upper
    """
)
"""Null if, and only if, an argument is."""

NEVER_NULL = _names(
    """
    clock_timestamp concat current_catalog current_database current_date current_role
    current_time current_timestamp current_user gen_random_uuid json_build_array json_build_object
    jsonb_build_array jsonb_build_object localtime localtimestamp now pg_backend_pid pg_is_in_recovery pg_postmaster_start_time random session_user
    pg_current_xact_id statement_timestamp transaction_timestamp txid_current user uuidv4 uuidv7 version
    """
)
"""Never null, whatever the arguments; but for VARIADIC ones."""

NULLABLE = _names(
    """
    array_append array_cat array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_to_string array_upper concat_ws current_schema
    current_setting date_part extract format json_extract_path jsonb_extract_path
    jsonb_extract_path_text num_nonnulls num_nulls jsonb_object jsonb_path_exists jsonb_path_query_first
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock plainto_tsquery
    phraseto_tsquery regexp_match regexp_replace regexp_substr row_to_json set_config setval string_to_array
    substring to_char to_date to_number to_tsquery to_tsvector ts_headline ts_rank ts_rank_cd
    websearch_to_tsquery
    """
)
"""Known, but they may give null."""

GROUP_AGGREGATES = _names(
    """
    any_value array_agg avg bit_and bit_or bool_and bool_or every json_agg json_object_agg jsonb_agg
    jsonb_object_agg max min string_agg sum
    """
)
"""Over at least one row, with arguments that are not null, they are not null."""

AGGREGATES = GROUP_AGGREGATES | _names(
    """
    corr count covar_pop covar_samp mode percentile_cont percentile_disc stddev stddev_pop
    stddev_samp var_pop var_samp variance
    """
)

NUMBERING = _names("cume_dist dense_rank percent_rank rank row_number")
"""Window functions that are never null."""

WINDOW = NUMBERING | _names("first_value lag last_value lead nth_value ntile")

ROWS = _names(
    """
    generate_series generate_subscripts json_array_elements json_array_elements_text json_each
    json_each_text json_object_keys json_populate_recordset json_to_record json_to_recordset
    jsonb_array_elements jsonb_array_elements_text jsonb_each jsonb_each_text jsonb_object_keys
    jsonb_path_query jsonb_populate_recordset jsonb_to_record jsonb_to_recordset regexp_matches
    regexp_split_to_table string_to_table unnest
    """
)
"""They give rows."""

_KINDS: dict[Kind, frozenset[str]] = {
    "scalar": STRICT | NEVER_NULL | NULLABLE,
    "aggregate": AGGREGATES,
    "window": WINDOW,
    "rows": ROWS,
}


def kind_of(name: str) -> Kind:
    """What calling a function of this name does to the rows of a level."""
    for kind, names in _KINDS.items():
        if name in names:
            return kind
    return "unknown"
