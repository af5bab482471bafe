"""Reading sensor logs: columns by name, dirt counted by reason, and typed refusals."""

import csv
import gzip
import time
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen import delimited, logs
from eisv_lumen.errors import ConfigurationError, SourceError
from eisv_lumen.logs import (
    LogMapping,
    LogReport,
    StateFilter,
    parse_times,
    read_log,
    read_states,
    readings_to_series,
    stream_readings,
)


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


def streamed(path, **options):
    report = LogReport()
    return list(stream_readings(path, report=report, **options)), report


def test_a_log_is_streamed_in_bounded_chunks(tmp_path, monkeypatch):
    path = written(tmp_path, "timestamp,cpu_temp_c,humidity_pct\n" + rows(5000))
    whole = only(read_log(path))
    monkeypatch.setattr(delimited, "BLOCK", 777)
    monkeypatch.setattr(logs, "CHUNK", 10)
    chunks, report = streamed(path)
    assert max(len(readings) for _, readings in chunks) == 10
    assert np.array_equal(np.concatenate([readings.times for _, readings in chunks]), whole.times)
    together = np.concatenate([readings.channels["humidity_pct"] for _, readings in chunks])
    assert np.array_equal(together, whole.channels["humidity_pct"])
    assert report.rows == 5000


DIRTY = {
    "1700000010,50,40,a,b\n": "wrong number of fields",
    "1700000010,50\n": "wrong number of fields",
    '1700000010,"50,40\n': "wrong number of fields",
    "# restarted\n": "comment",
    "  # restarted, again\n": "comment",
    "\0\0\0\0\0\0\n": "NUL bytes",
    "\0\0001700000010,50,40\n": "NUL bytes",
    "timestamp,cpu_temp_c,humidity_pct\n": "repeated header",
    "timestamp,cpu_temp_c,humidity_pct\r\n": "repeated header",
    "soon,50,40\n": "unreadable time",
    "1e400,50,40\n": "unreadable time",
    ",50,40\n": "unreadable time",
    "1700000010,,-\n": "no value",
    "1700000010,\ufffd\u00e9,x\n": "no value",
    "x" * 200_000 + "\n": "wrong number of fields",
}


@settings(max_examples=60, deadline=None)
@given(
    dirt=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(sorted(DIRTY))), max_size=12),
    block=st.sampled_from([64, 1000, 1 << 20]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_malformed_lines_are_counted_and_spoil_no_other(tmp_path_factory, dirt, block, ending):
    lines = [f"{1700000000 + i}.25,{50 + i / 8},{40 - i / 4}{ending}" for i in range(60)]
    for at, line in sorted(dirt, reverse=True):
        lines.insert(at, line)
    path = written(
        tmp_path_factory.mktemp("dirt"), f"timestamp,cpu_temp_c,humidity_pct{ending}" + "".join(lines)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK", block)
        chunks, report = streamed(path)
    assert np.concatenate([r.times for _, r in chunks]).tolist() == [1700000000.25 + i for i in range(60)]
    values = np.concatenate([r.channels["cpu_temp_c"] for _, r in chunks])
    assert values.tolist() == [50 + i / 8 for i in range(60)]
    reasons = [DIRTY[line] for _, line in dirt]
    found = {reason: n for reason, n in report.dropped.items() if reason != "line too long"}
    found["wrong number of fields"] = found.get("wrong number of fields", 0) + report.dropped.get(
        "line too long", 0
    )
    assert found | {"wrong number of fields": 0} | found == {"wrong number of fields": 0} | Counter(reasons)
    assert report.rows == 60 + len(dirt)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(allow_infinity=False).map(repr),
            st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
            st.integers(-(10**18), 10**18).map(str),
            st.from_regex(r"\A[-+]?[0-9]{0,12}\.?[0-9]{0,12}\Z"),
            st.sampled_from(
                ["", "nan", "None", "N/A", "1e3", "1_000", "٣", "--1", "1.2.3", "+", ".", "-0", "x"]
            ),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_numbers_are_those_that_float_reads(texts):
    block = "".join(f"7,{text}\n" for text in texts).encode()
    fields = delimited.LineForm(b"", ",", 2, (1,)).split(block).fields
    values, unreadable = fields.numbers(0)
    expected, bad = [], 0
    for text in texts:
        try:
            assert "_" not in text and text.isascii()
            expected.append(float(text))
        except (ValueError, AssertionError):
            bad += text.lower() not in delimited.NO_VALUE
            expected.append(np.nan)
    assert values.tobytes() == np.array(expected).tobytes() or np.array_equal(
        values, expected, equal_nan=True
    )
    assert unreadable == bad


def test_quoted_fields(tmp_path):
    path = written(
        tmp_path,
        '"timestamp","cpu_temp_c","device"\n'
        '"2024-05-01T12:00:00Z","50.5","a"\n'
        '"2024-05-01T12:00:01Z", "51.5","a"\r\n'
        '"2024-05-01T12:00:02Z",52.5,"desk, ""left"""\n'
        '2024-05-01T12:00:03Z,53.5,"an open one\n'
        "2024-05-01T12:00:04Z,54.5,a\n",
    )
    log = read_log(path)
    # A quote that is left open ends with its line.
    assert {name: r.channels["cpu_temp_c"].tolist() for name, r in log.devices.items()} == {
        "a": [50.5, 51.5, 54.5],
        'desk, "left"': [52.5],
        "an open one": [53.5],
    }
    assert log.report.dropped == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, ending, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK", 301)
    lines = ["timestamp,CPU Temp (°C),device"] + [f"{1.7e9 + i},{50 + i},Küche" for i in range(100)]
    path = tmp_path / "log.csv"
    path.write_bytes(ending.join(lines).encode(encoding))
    log = read_log(path)
    (name,) = log.devices
    assert name == "Küche"
    assert log.devices[name].channels["cpu_temp_c"].tolist() == [50.0 + i for i in range(100)]
    assert log.report.dropped == {} and log.report.rows == 100


def test_a_header_below_other_lines_or_behind_a_hash(tmp_path):
    path = written(tmp_path, "Exported by Weather 2.1\n\n# station,7\n#timestamp,cpu_temp_c\n1700000000,50\n")
    log = read_log(path)
    assert only(log).channels["cpu_temp_c"].tolist() == [50.0]
    assert log.report.dropped == {"before the header": 2}
    assert log.report.rows == 3


def test_a_last_line_without_its_end(tmp_path):
    path = written(tmp_path, "timestamp,cpu_temp_c,humidity_pct\n1,50,40\n2,51,41\n3,5")
    log = read_log(path)
    assert only(log).times.tolist() == [1.0, 2.0]
    assert log.report.dropped == {"wrong number of fields": 1}
    second_member = gzip.compress(b"4,52\n" * 300)
    (tmp_path / "cut.csv.gz").write_bytes(
        gzip.compress(b"timestamp,cpu_temp_c\n1,50\n2,51\n3,5") + second_member[:12]
    )
    log = read_log(tmp_path / "cut.csv.gz")
    assert only(log).times.tolist() == [1.0, 2.0] and log.report.dropped == {"line cut off": 1}


def test_a_line_that_never_ends_takes_no_memory_and_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK", 1000)
    monkeypatch.setattr(delimited, "LONGEST_LINE", 1500)
    path = written(tmp_path, "timestamp,cpu_temp_c\n1,50\n" + "9" * 50_000 + "\n2,51\n")
    log = read_log(path)
    assert only(log).times.tolist() == [1.0, 2.0]
    assert log.report.dropped == {"line too long": 1} and log.report.rows == 3


def test_mixed_devices_keep_their_own_order(tmp_path):
    text = "".join(f"{i},{i % 50},{'abc'[i * 7 % 3]}\n" for i in range(3000))
    log = read_log(written(tmp_path, "timestamp,cpu_temp_c,host\n" + text))
    assert list(log.devices) == ["a", "b", "c"]
    for number, name in ((0, "a"), (1, "b"), (2, "c")):
        assert log.devices[name].times.tolist() == [float(i) for i in range(3000) if i * 7 % 3 == number]


@pytest.mark.parametrize(
    ("channel", "unit", "text", "value"),
    [
        ("ambient_temp_c", "°F", "68", 20.0),
        ("ambient_temp_c", "fahrenheit", "212", 100.0),
        ("cpu_temp_c", "degrees Celsius", "50.5", 50.5),
        ("cpu_temp_c", "Kelvin", "323.15", 50.0),
        ("cpu_temp_c", "m°C", "48312", 48.312),
        ("cpu_temp_c", "millidegrees", "48312", 48.312),
        ("pressure_hpa", "Pa", "101325", 1013.25),
        ("pressure_hpa", "kPa", "101.325", 1013.25),
        ("pressure_hpa", "mbar", "1013.25", 1013.25),
        ("pressure_hpa", "inHg", "29.92", 1013.2075),
        ("pressure_hpa", "mmHg", "760", 1013.25),
        ("humidity_pct", "fraction", "0.455", 45.5),
        ("humidity_pct", "% RH", "45.5", 45.5),
        ("disk_pct", "0..1", "0.5", 50.0),
        ("light_lux", "lx", "120", 120.0),
        ("light_lux", "klux", "1.2", 1200.0),
        ("alpha", "%", "25", 0.25),
    ],
)
def test_declared_units_are_converted(tmp_path, channel, unit, text, value):
    mapping = LogMapping.from_dict({"columns": {"x": channel}, "units": {"x": unit}})
    log = read_log(written(tmp_path, f"timestamp,x\n1,{text}\n"), mapping=mapping)
    assert only(log).channels[channel][0] == pytest.approx(value, abs=1e-3)
    assert set(log.report.converted) == (set() if float(text) == value else {"x"})


@pytest.mark.parametrize(
    ("column", "channel", "unit"),
    [
        ("temp_f", "ambient_temp_c", "°F"),
        ("Temperature (°F)", "ambient_temp_c", "°F"),
        ("temperature_fahrenheit", "ambient_temp_c", "°F"),
        ("ambientTempF", "ambient_temp_c", "°F"),
        ("cpu_temp_k", "cpu_temp_c", "K"),
        ("cpu_temp_millidegrees", "cpu_temp_c", "m°C"),
        ("pressure_pa", "pressure_hpa", "Pa"),
        ("Pressure [kPa]", "pressure_hpa", "kPa"),
        ("pressure_inHg", "pressure_hpa", "inHg"),
        ("pressure_in_hg", "pressure_hpa", "inHg"),
        ("humidity_fraction", "humidity_pct", "fraction"),
        ("humidity (0-1)", "humidity_pct", "fraction"),
        ("memory_ratio", "memory_pct", "fraction"),
    ],
)
def test_another_unit_in_a_name_is_never_guessed(tmp_path, column, channel, unit):
    path = written(tmp_path, f"timestamp,{column},cpu_pct\n1,0.5,10\n")
    log = read_log(path)
    assert channel not in only(log).channels and log.report.ignored == [column]
    (note,) = log.report.notes
    assert note.endswith(f'units: {{"{column}": "{unit}"}}')
    declared = read_log(path, mapping=LogMapping(units={column: unit}))
    assert declared.report.mapped[column] == channel and declared.report.converted == {column: unit}
    with pytest.raises(ConfigurationError, match="and its name says"):
        read_log(path, mapping=LogMapping(columns={column: channel}))


@pytest.mark.parametrize(
    ("column", "channel"),
    [
        ("temperature_celsius", "ambient_temp_c"),
        ("pressure_hPa", "pressure_hpa"),
        ("Pressure (mbar)", "pressure_hpa"),
        ("rh_pct", "humidity_pct"),
        ("cpuTemp", "cpu_temp_c"),
    ],
)
def test_the_usual_unit_in_a_name_is_no_obstacle(tmp_path, column, channel):
    log = read_log(written(tmp_path, f"timestamp,{column}\n1,40\n"))
    assert log.report.mapped == {column: channel} and not log.report.notes


@pytest.mark.parametrize("column", ["humidity_1", "memory_01", "temp_max", "light_s", "memory_mb", "temp_c2"])
def test_names_that_count_or_say_something_else_are_no_units(tmp_path, column):
    log = read_log(written(tmp_path, f"timestamp,cpu_pct,{column}\n1,40,1\n"))
    assert log.report.ignored == [column] and not log.report.notes


@pytest.mark.parametrize(
    ("column", "values", "unit"),
    [
        ("pressure_hpa", np.linspace(99_000, 102_000, 40), "Pa"),
        ("pressure", np.linspace(99.0, 102.0, 40), "kPa"),
        ("pressure", np.linspace(29.0, 30.5, 40), "inHg"),
        ("humidity", np.linspace(0.3, 0.6, 40), "fraction"),
        ("temp", np.linspace(288.0, 300.0, 40), "K"),
        ("temp", np.linspace(60.0, 75.0, 40), "°F"),
        ("cpu_temp", np.linspace(45_000.0, 52_000.0, 40), "m°C"),
    ],
)
def test_values_that_look_like_another_unit_are_pointed_out_and_kept(tmp_path, column, values, unit):
    text = f"timestamp,{column},disk_pct\n" + "".join(f"{i},{v},24\n" for i, v in enumerate(values))
    log = read_log(written(tmp_path, text))
    (note,) = log.report.notes
    assert note.endswith(f'units: {{"{column}": "{unit}"}}')
    channel = log.report.mapped[column]
    assert only(log).channels[channel].tolist() == values.tolist()  # nothing is converted without a word
    declared = read_log(tmp_path / "log.csv", mapping=LogMapping(units={column: unit}))
    assert not declared.report.notes


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("pressure", [0.0] * 10 + [1013.0] * 30),
        ("temp", [394.0] * 10 + [20.0] * 30),
        ("humidity", [0.0] * 40),
        ("pressure", [1e9] * 40),
        ("temp", [290.0] * 10),
    ],
)
def test_faults_are_no_other_unit(tmp_path, column, values):
    text = f"timestamp,{column},disk_pct\n" + "".join(f"{i},{v},24\n" for i, v in enumerate(values))
    assert read_log(written(tmp_path, text)).report.notes == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"columns": {"x": "mood"}}, "mapped to 'mood'"),
        ({"columns": {"nowhere": "cpu_pct"}}, "no column 'nowhere'"),
        ({"units": {"nowhere": "Pa"}}, "no column 'nowhere'"),
        ({"units": {"cpu_pct": "parsec"}}, "the unit 'parsec'"),
        ({"units": {"cpu_pct": "Pa"}}, "cpu_pct, in the unit 'Pa'"),
        ({"units": {"x": "Pa"}}, "'x', which is no channel"),
        ({"units": {"x": 5}}, "units: "),
        ({"columns": ["x"]}, "columns: "),
        ({"colums": {"x": "cpu_pct"}}, "colums"),
        ({"timezone": "Mars/Olympus"}, "Mars"),
        ({"timezone": 2}, "timezone: 2"),
        (["x"], "list"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_with_what_exists(tmp_path, data, reason):
    path = written(tmp_path, "timestamp,cpu_pct,x\n1,40,1\n")
    with pytest.raises(ConfigurationError, match=reason) as refused:
        read_log(path, mapping=LogMapping.from_dict(data))
    if "nowhere" in reason:
        assert refused.value.expected == "one of timestamp, cpu_pct, x"


def test_a_mapping_names_time_date_device_zone_and_what_to_ignore(tmp_path):
    path = written(tmp_path, "Tag;Uhrzeit;Gerät;temp;Kühlschrank\n2024-07-01;14:00:00;Flur;21,5;4,5\n")
    mapping = LogMapping.from_dict(
        {
            "columns": {
                "Tag": "date",
                "Uhrzeit": "time",
                "Gerät": "device",
                "Kühlschrank": "ambient_temp_c",
                "temp": "ignore",
            },
            "timezone": "Europe/Berlin",
        }
    )
    log = read_log(path, mapping=mapping)
    assert list(log.devices) == ["Flur"]
    assert only(log).times.tolist() == [datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp()]
    assert only(log).channels["ambient_temp_c"].tolist() == [4.5]
    assert log.report.ignored == ["temp"]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_times_since_the_epoch_in_every_unit(tmp_path, unit, factor):
    path = written(tmp_path, f"ts,cpu_pct\n{1_700_000_000.5 * factor:.0f},40\n{60 * factor:.0f},40\n")
    second = 1_700_000_000 if unit == "s" else 1_700_000_000.5
    declared = only(read_log(path, mapping=LogMapping(units={"ts": unit}))).times
    assert declared.tolist() == [pytest.approx(second, abs=1e-6), 60.0]
    assert only(read_log(path)).times[0] == pytest.approx(second, abs=1e-6)


def test_an_unreadable_time_is_shown(tmp_path):
    path = written(tmp_path, "timestamp,cpu_pct\n01.05.2024 12:00,40\n")
    with pytest.raises(SourceError, match="1 unreadable time; such as '01.05.2024 12:00'"):
        read_log(path)


def test_times_in_a_declared_form(tmp_path):
    mapping = LogMapping.from_dict({"timezone": "Europe/Berlin", "time_format": "%d.%m.%Y %H:%M"})
    path = written(tmp_path, "timestamp,cpu_pct\n01.07.2024 14:00,40\n2024-07-01 14:00,40\n")
    log = read_log(path, mapping=mapping)
    assert only(log).times.tolist() == [datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp()]
    assert log.report.dropped == {"unreadable time": 1}
    path = written(tmp_path, "date;time;cpu_pct\n07/01/24;2:00 PM;40\n")
    log = read_log(path, mapping=LogMapping(time_format="%m/%d/%y %I:%M %p"))
    assert only(log).times.tolist() == [datetime(2024, 7, 1, 14, tzinfo=UTC).timestamp()]
    path = written(tmp_path, "timestamp,cpu_pct\n01.07.2024 14:00 +0200,40\n")
    log = read_log(path, mapping=LogMapping(time_format="%d.%m.%Y %H:%M %z", timezone="Asia/Tokyo"))
    assert only(log).times.tolist() == [datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp()]


@pytest.mark.parametrize("form", ["%d.%m. %H:%M", "%Y-%m-%d", "%q", "noon"])
def test_a_form_that_gives_no_moment_is_refused(form):
    with pytest.raises(ConfigurationError, match="time_format"):
        LogMapping.from_dict({"time_format": form})


def test_a_time_of_another_unit_than_seconds_says_so_in_its_name(tmp_path):
    log = read_log(written(tmp_path, "Uptime,Time (ms),cpu_pct\n1,500,40\n2,2500,41\n"))
    assert only(log).times.tolist() == [0.5, 2.5]
    assert log.report.notes == ["times are read in ms, as the column's name 'Time (ms)' says"]
    assert only(read_log(written(tmp_path, "time_s,cpu_pct\n500,40\n"))).times.tolist() == [500.0]


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        (
            '"date","Temperature"\n"1","2015-02-04 17:51:00",23.2\n"2","2015-02-04 17:52:00",23.3\n',
            "row name",
        ),
        ("date,Temperature\n2015-02-04 17:51:00,23.2,\n2015-02-04 17:52:00,23.3,\n", "nothing"),
    ],
)
def test_lines_with_one_field_more_than_there_are_names(tmp_path, text, ignored):
    log = read_log(written(tmp_path, text))
    assert only(log).channels["ambient_temp_c"].tolist() == [23.2, 23.3]
    assert (log.report.ignored, log.report.dropped) == ([ignored], {})


def test_one_line_that_is_too_long_moves_no_column(tmp_path):
    text = "timestamp,cpu_pct\n1,40\n2,41,7\n3,42\n"
    log = read_log(written(tmp_path, text))
    assert only(log).channels["cpu_pct"].tolist() == [40, 42]
    assert log.report.dropped == {"wrong number of fields": 1}


def test_a_header_in_the_encoding_of_a_desktop(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("Zeit;Außen [°C]\n2024-07-01 14:00;21,5\n".encode("cp1252"))
    mapping = LogMapping(columns={"Zeit": "time", "Außen [°C]": "ambient_temp_c"})
    log = read_log(path, mapping=mapping)
    assert log.report.mapped == {"Außen [°C]": "ambient_temp_c"}
    assert only(log).channels["ambient_temp_c"].tolist() == [21.5]


def test_a_value_that_is_no_number_is_shown(tmp_path):
    path = written(tmp_path, "timestamp,temp\n1,\n2,temp=48.3'C\n")
    with pytest.raises(SourceError, match='2 no value; such as "temp=48.3\'C"'):
        read_log(path)
    log = read_log(written(tmp_path, "timestamp,temp\n1,21\n2,nan\n3,on\n4,off\n"))
    assert log.report.notes == ["a value of ambient_temp_c that is no number: 'on'"]
    assert log.report.values == {"not a number": 2}


def dirty_copy(path, tmp_path):
    """A real log with a reboot, repeated lines, a gap, dead and frozen channels, and broken lines in it."""
    header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    names = header.split(",")
    cells = [line.split(",") for line in lines[:12_000]]
    humidity, pressure = names.index("humidity_pct"), names.index("pressure_hpa")
    ambient = names.index("ambient_temp_c")
    for row in range(4000, 6000):
        cells[row][humidity] = cells[4000][humidity]  # frozen
    for row in range(7000, 8000):
        cells[row][pressure] = ""  # dead
    cells[2000][pressure], cells[2001][ambient] = "0.0", "394"
    text = [",".join(row) for row in cells]
    text = text[:9000] + text[9500:]  # a gap
    text = text[10_500:] + text[:10_500]  # a reboot
    text[100:100] = ["", text[99], "cut,off", "#", header, "\0" * 40]
    (tmp_path / "dirty.csv").write_text("\n".join([header, *text]))
    return tmp_path / "dirty.csv"


@pytest.mark.parametrize("name", ["astropi_ground_2015.csv.gz", "astropi_iss_mk2_ir.csv.gz"])
def test_real_logs_with_dirt_in_them(shared_data, tmp_path, name):
    clean, _ = read_states(shared_data / name)
    series, report = read_states(dirty_copy(shared_data / name, tmp_path))
    assert report.dropped == {
        "wrong number of fields": 1,
        "comment": 1,
        "repeated header": 1,
        "NUL bytes": 1,
        "repeated time": 1,
    }
    frozen = report.values.pop("frozen humidity_pct")
    assert 1700 <= frozen <= 1705  # 2000 less the 300 that may repeat; a neighbour may hold the same value
    assert report.values == {"impossible pressure_hpa": 1, "impossible ambient_temp_c": 1}
    assert report.rows == 11_505 and len(series) == 11_500
    starts = [part.start for part in series.segments]
    assert 1000 in starts and 1000 + 9000 in starts  # the reboot, and the gap
    assert np.isin(series.times, clean.times).all()


def test_chunks_of_any_size_give_the_same_states(shared_data, tmp_path):
    path = dirty_copy(shared_data / "astropi_ground_2015.csv.gz", tmp_path)
    readings, report = only(read_log(path)), LogReport()
    whole = readings_to_series(readings, report)
    for size in (16, 16_384):
        again = LogReport()
        states = StateFilter(again)
        parts = [states.update(readings[at : at + size]) for at in range(0, len(readings), size)]
        assert np.array_equal(np.concatenate([times for times, _ in parts]), whole.times)
        assert np.array_equal(np.concatenate([values for _, values in parts]), whole.states)
        assert (again.dropped, again.values) == (report.dropped, report.values)


def test_readings_of_a_frozen_sensor_alone_are_no_states(tmp_path):
    rng = np.random.default_rng(0)
    values = [*np.round(1000 + rng.normal(0, 1, 500), 2), *[1001.23] * 2000]
    text = "".join(f"{2 * i},{v}\n" for i, v in enumerate(values))
    series, report = read_states(written(tmp_path, "timestamp,pressure_hpa\n" + text))
    assert report.values == {"frozen pressure_hpa": 1700}
    assert report.dropped == {"no possible value": 1700} and len(series) == 800


def test_a_log_is_read_faster_than_cell_by_cell(tmp_path):
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(40, 5, (60_000, 5)), 2)
    lines = [
        f"2024-01-{1 + i // 2000 % 30:02d}T{i % 24:02d}:00:{i % 60:02d}.5Z," + ",".join(map(str, row))
        for i, row in enumerate(values.tolist())
    ]
    header = "timestamp,cpu_temp_c,ambient_temp_c,humidity_pct,cpu_pct,memory_pct\n"
    path = written(tmp_path, header + "\n".join(lines))

    def cell_by_cell():
        with path.open(newline="") as file:
            _, *columns = zip(*list(csv.reader(file))[1:], strict=True)
        return [[float(cell) for cell in column] for column in columns]

    def seconds(read):
        begin = time.perf_counter()
        read()
        return time.perf_counter() - begin

    ratio = min(seconds(cell_by_cell) for _ in range(3)) / min(
        seconds(lambda: streamed(path)) for _ in range(3)
    )
    assert ratio > 2.0  # about 4.5, although only this reader reads the times as well
