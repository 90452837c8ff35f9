"""What scalars of YAML mean to kubectl."""

from __future__ import annotations

import math

import pytest

from vmsvc_grpc.model.yaml_scalars import key_text, plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("Null", None),
        ("true", True),
        ("YES", True),
        ("Off", False),
        ("y", True),
        ("N", False),
        ("tRUE", "tRUE"),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("1_000", 1000),
        ("0755", 493),
        ("0o17", 15),
        ("-0x1F", -31),
        ("0xb0_b", 2827),
        ("+0b1", 1),
        ("-017", -15),
        ("0b101", 5),
        ("00", 0),
        ("08", 8.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("123e4567", "123e4567"),
        ("9" * 65, float("9" * 65)),
        ("9" * 400, "9" * 400),
        ("9" * 5_000, "9" * 5_000),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", float(2**63)),
        ("18446744073709551615", float(2**64 - 1)),
        ("+18446744073709551615", float(2**64)),
        ("-9223372036854775809", float(-(2**63))),
        ("0X1f", 31),
        ("0B11", 3),
        ("._5", "._5"),
        (".5_0", ".5_0"),
        ("1_0.5", 10.5),
        ("0o8", "0o8"),
        ("0x", "0x"),
        ("0x_", "0x_"),
        ("-", "-"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        (".inf", math.inf),
        ("+.Inf", math.inf),
        ("-.INF", -math.inf),
        (".iNF", ".iNF"),
        ("-.nan", "-.nan"),
        ("1_", 1),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    read = plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e308, ".inf"),
        (-1e39, "-.inf"),
        (-math.inf, "-.inf"),
        (math.nan, ".nan"),
        (3.4e38, "3.4e+38"),
        (1e-46, "0"),
    ],
)
def test_a_number_as_a_key_is_one_of_32_bits(value: float, text: str) -> None:
    """One beyond them ended the process."""
    assert key_text(value, "as written") == text
