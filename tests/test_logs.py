"""Reading sensor logs: columns by name, dirt counted by reason, and typed refusals."""

import gzip
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from eisv_lumen.errors import ConfigurationError, SourceError
from eisv_lumen.logs import parse_times, read_log, read_states


def written(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def rows(n, start=1.7e9, step=2.0):
    return "".join(f"{start + i * step},{40 + i % 7},{30 + i % 5}\n" for i in range(n))


def only(log):
    (readings,) = log.devices.values()
    return readings


def test_columns_are_found_by_name(tmp_path):
    log = read_log(
        written(
            tmp_path,
            "Time;CPU Temp (C);temp;cpu_temp_c;Humidity %;pressure;mood\n"
            "2024-05-01T12:00:00Z;1;21.5;50.5;40;1000;blue\n",
        )
    )
    readings = only(log)
    assert log.report.mapped == {
        "cpu_temp_c": "cpu_temp_c",
        "temp": "ambient_temp_c",
        "Humidity %": "humidity_pct",
        "pressure": "pressure_hpa",
    }
    assert log.report.ignored == ["CPU Temp (C)", "mood"]
    assert "light_lux" in log.report.missing
    assert readings.channels["cpu_temp_c"].tolist() == [50.5]
    assert readings.times.tolist() == [datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()]


def test_a_mapping_goes_before_the_synonyms(tmp_path):
    path = written(tmp_path, "when,x,temp\n1700000000,55,20\n")
    log = read_log(path, mapping={"when": "time", "x": "cpu_temp_c"})
    assert only(log).channels["cpu_temp_c"].tolist() == [55.0]
    with pytest.raises(ConfigurationError, match="mapped to 'mood'"):
        read_log(path, mapping={"x": "mood"})


def test_times_in_every_form():
    moment = datetime(2024, 7, 1, 12, 0, 0, 500000, tzinfo=UTC).timestamp()
    zone = ZoneInfo("Europe/Berlin")
    texts = ["2024-07-01T12:00:00.5Z", "2024-07-01 14:00:00.500", "2024-07-01T14:00:00.5+02:00", str(moment)]
    assert parse_times(texts, zone).tolist() == [moment] * 4
    assert parse_times([str(moment * 1000)], zone).tolist() == [moment]
    assert np.isnan(parse_times(["yesterday", "nan", "inf", ""], zone)).all()


def test_date_and_time_in_two_columns_and_decimal_commas(tmp_path):
    path = written(tmp_path, "\ufeffDate;Time;Temperature (°C)\r\n2024/05/01;12:00:00;21,5\r\n")
    readings = only(read_log(path))
    assert readings.times.tolist() == [datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()]
    assert readings.channels["ambient_temp_c"].tolist() == [21.5]
    path = written(tmp_path, "date,timestamp,temp_h,temp_p\nmonday,2024-05-01T12:00:00,21.5,22\n")
    log = read_log(path)
    assert only(log).times.tolist() == readings.times.tolist()
    assert log.report.ignored == ["temp_p"]


def test_dirt_is_counted_by_reason(tmp_path):
    text = (
        "timestamp,cpu_temp_c,humidity_pct,device\n"
        "2024-01-01T00:00:00,50,40,a\n"
        "2024-01-01T00:00:02,broken,40,a\n"
        "2024-01-01T00:00:04,50\n"
        "\n"
        "never,50,40,a\n"
        "2024-01-01T00:00:06,,NaN,a\n"
        "2024-01-01T00:00:08,394,0,b\n"
        "2024-01-01T00:00:08,50,inf,b\n"
    )
    log = read_log(written(tmp_path, text))
    assert log.report.rows == 7
    assert log.report.dropped == {"wrong number of fields": 1, "unreadable time": 1, "no value": 1}
    assert {name: len(readings) for name, readings in log.devices.items()} == {"a": 2, "b": 2}
    series = log.series()
    assert log.report.dropped["repeated time"] == 1
    assert log.report.values == {"not a number": 1, "impossible cpu_temp_c": 1}
    assert len(series["b"]) == 1


def test_a_newest_first_log_is_sorted_and_a_reboot_is_not(tmp_path):
    lines = rows(60).splitlines(keepends=True)
    header = "timestamp,cpu_temp_c,humidity_pct\n"
    straight, _ = read_states(written(tmp_path, header + "".join(lines)))
    turned, report = read_states(written(tmp_path, header + "".join(reversed(lines)), "turned.csv"))
    assert np.array_equal(straight.states, turned.states)
    assert report.notes == ["the lines were not in order of time and were sorted"]
    rebooted, report = read_states(written(tmp_path, header + "".join(lines[30:] + lines[:30]), "reboot.csv"))
    assert report.notes == []
    assert rebooted.segments == (slice(0, 30), slice(30, 60))


def test_gzip_and_a_file_cut_off(tmp_path):
    text = "timestamp,cpu_temp_c,humidity_pct\n" + rows(20_000)
    packed = gzip.compress(text.encode())
    (tmp_path / "whole.csv.gz").write_bytes(packed)
    (tmp_path / "cut").write_bytes(packed[: len(packed) // 2])
    whole, report = read_states(tmp_path / "whole.csv.gz")
    assert len(whole) == 20_000 and not report.notes
    cut, report = read_states(tmp_path / "cut")
    assert 1000 < len(cut) < 20_000
    assert np.array_equal(cut.states, whole.states[: len(cut)])
    assert "cut off" in report.notes[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no time column"),
        ("\0\1\2\3" * 50, "no time column"),
        ("cpu_temp_c,humidity_pct\n50,40\n", "no time column"),
        ("timestamp,mood\n2024-01-01,blue\n", "no channel column"),
        ("timestamp,cpu_temp_c\n", "none usable"),
        ("timestamp,cpu_temp_c\nsoon,50\n", "1 unreadable time"),
        ("timestamp,cpu_temp_c,humidity_pct\n" + rows(19), "19 usable states"),
        ("timestamp,cpu_temp_c\n" + "1700000000,50\n" * 40, "1 usable states"),
        ("timestamp,cpu_temp_c\n" + "".join(f"{i},nan\n" for i in range(40)), "40 no value"),
    ],
)
def test_refusals_say_what_was_found(tmp_path, content, reason):
    with pytest.raises(SourceError, match=reason):
        read_states(written(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        read_states(tmp_path / "absent.csv")
    with pytest.raises(SourceError, match="directory"):
        read_states(tmp_path)
    (tmp_path / "bad.csv.gz").write_bytes(b"\x1f\x8b" + b"rubbish" * 20)
    with pytest.raises(SourceError, match=r"bad\.csv\.gz"):
        read_states(tmp_path / "bad.csv.gz")
    with pytest.raises(ConfigurationError, match="Mars"):
        read_states(written(tmp_path, "timestamp,cpu_temp_c\n1,50\n"), timezone="Mars/Olympus")


def test_real_logs(shared_data):
    series, report = read_states(shared_data / "piweather_sensehat.raw_order.csv.gz")
    assert report.values == {"impossible pressure_hpa": 1}
    assert len(series) == report.rows == 2913
    back = int(np.flatnonzero(np.diff(series.times) < 0)[0]) + 1
    assert back in [part.start for part in series.segments]
    series, report = read_states(shared_data / "astropi_ground_2015.csv.gz")
    assert len(series) == 24_604 and report.ignored == ["ambient_temp_p_c"] and not report.dropped
    assert series.step == 10.0
    assert 0.3 < series.states[:, 0].mean() < 0.45  # about 36 °C at the processor, 27 °C around it


def test_readings_that_are_all_impossible_are_no_states(tmp_path):
    path = tmp_path / "impossible.csv"
    path.write_text("timestamp,cpu_temp_c\n" + "".join(f"{1.7e9 + 2 * i},inf\n" for i in range(40)))
    with pytest.raises(SourceError, match="impossible|no possible value|20"):
        read_states(path)


def test_a_blank_time_does_not_change_how_the_others_are_read():
    times = parse_times(["1710123012345", "", "1710123014345"], UTC)
    assert times[0] == 1710123012.345 and np.isnan(times[1]) and times[2] == 1710123014.345
