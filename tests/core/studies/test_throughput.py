"""Speeds of contenders, compared in the same round."""

from slm_core.studies.throughput import Measurement, speed_ratios, table


def measured(name, speeds):
    return Measurement(
        name, parameters=1_000, tokens_per_update=100, first_update_s=3.0, first_loss=5.5, last_loss=2.25, speeds=speeds
    )


A, B, C = measured("a", [100.0, 200.0, 50.0]), measured("b", [50.0, 50.0, 50.0]), measured("c", [200.0, 100.0, 50.0])


def test_a_ratio_compares_speeds_of_the_same_round():
    assert speed_ratios(A, B) == (2.0, 1.0, 4.0)


def test_the_time_of_an_update_is_that_of_the_median_speed():
    assert A.speed == 100.0 and A.update_ms == 1_000.0 and A.compile_s == 2.0


def test_the_table_has_a_column_per_reference():
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table([A, B, C], ["a", "b"]).split("\n")
    ]
    assert head[-2:] == ["over a, median (range)", "over b, median (range)"]
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert rows[0][-2:] == ["1", "2.000 (1.000 to 4.000)"]
    assert rows[1][-2:] == ["0.500 (0.250 to 1.000)", "1"]
    assert rows[2][-2:] == ["1.000 (0.500 to 2.000)", "2.000 (1.000 to 4.000)"]


def test_a_table_without_references_has_no_ratios():
    assert "over" not in table([A, B])
