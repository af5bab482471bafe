"""Sensor logs as Parquet, and mapping files: real files written by pyarrow, read like CSV."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dataset_builder import parquet_log
from dataset_builder.mapping import read_mapping
from eisv_lumen.errors import ConfigurationError, SourceError
from eisv_lumen.logs import LogMapping, LogReport, read_log

NOON = datetime(2024, 7, 1, 12, 0, 0, 250_000)
SECONDS = NOON.replace(tzinfo=UTC).timestamp()


def written(tmp_path, columns, **options):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path, **options):
    report = LogReport()
    parts = {}
    for device, readings in parquet_log.stream_readings(path, report=report, **options):
        parts.setdefault(device, []).append(readings)
    return {
        device: (
            np.concatenate([part.times for part in found]),
            {name: np.concatenate([part.channels[name] for part in found]) for name in found[0].channels},
        )
        for device, found in parts.items()
    }, report


def times_of(tmp_path, columns, **options):
    devices, _ = read(written(tmp_path, columns | {"cpu_pct": pa.array([40.0])}), **options)
    (times,) = devices[""][0].tolist()
    return times


def test_texts_in_a_declared_form_are_times(tmp_path):
    (tmp_path / "map.yaml").write_text('time_format: "%d/%m/%Y %H:%M"\ntimezone: Europe/Berlin\n')
    mapping = read_mapping(tmp_path / "map.yaml")
    when = datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp()
    assert times_of(tmp_path, {"time": pa.array(["01/07/2024 14:00"])}, mapping=mapping) == when


@pytest.mark.parametrize(
    "array",
    [
        pa.array([NOON], pa.timestamp("ms")),
        pa.array([NOON], pa.timestamp("us")),
        pa.array([NOON], pa.timestamp("ns")),
        pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("us", "Asia/Tokyo")),
        pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("ns", "UTC")),
        pa.array([SECONDS]),
        pa.array([int(SECONDS * 1e3)]),
        pa.array([int(SECONDS * 1e6)]),
        pa.array([int(SECONDS * 1e6) * 1000]),
        pa.array([Decimal("1719835200.250")]),
        pa.array([NOON.isoformat()]),
        pa.array([NOON.isoformat() + "Z"], pa.large_string()),
        pa.array([NOON.isoformat()]).dictionary_encode(),
        pa.array([str(SECONDS)]),
    ],
    ids=lambda array: str(array.type),
)
def test_times_of_every_type(tmp_path, array):
    assert times_of(tmp_path, {"timestamp": array}) == pytest.approx(SECONDS, abs=1e-6)


def test_naive_times_are_in_the_zone_named_and_others_are_not(tmp_path):
    berlin = NOON.replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    assert berlin == SECONDS - 7200
    for kind in (pa.timestamp("us"), pa.timestamp("ns")):
        naive = {"timestamp": pa.array([NOON], kind)}
        assert times_of(tmp_path, naive, timezone="Europe/Berlin") == berlin
        assert times_of(tmp_path, naive, mapping=LogMapping(timezone="Europe/Berlin")) == berlin
    aware = {"timestamp": pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("us", "UTC"))}
    assert times_of(tmp_path, aware, timezone="Europe/Berlin") == SECONDS
    in_parts = {
        "date": pa.array([date(2024, 7, 1)]),
        "time": pa.array([time(12, 0, 0, 250_000)], pa.time64("us")),
    }
    assert times_of(tmp_path, in_parts, timezone="Europe/Berlin") == berlin


@pytest.mark.parametrize(
    "day", [pa.array([date(2024, 7, 1)]), pa.array(["2024-07-01"]), pa.array([NOON], pa.timestamp("ns"))]
)
@pytest.mark.parametrize("kind", [pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.string()])
def test_date_and_time_in_two_columns(tmp_path, day, kind):
    clock = time(12, 0, 0, 250_000)
    of_day = pa.array(["12:00:00.250"]) if kind == pa.string() else pa.array([clock], kind)
    assert times_of(tmp_path, {"date": day, "time": of_day}) == SECONDS


def test_a_date_alone_and_a_pandas_index_without_a_name(tmp_path):
    assert times_of(tmp_path, {"date": pa.array([date(2024, 7, 1)])}) == SECONDS - 12 * 3600 - 0.25
    assert times_of(tmp_path, {"__index_level_0__": pa.array([NOON], pa.timestamp("ns"))}) == SECONDS


def test_a_declared_unit_of_time(tmp_path):
    columns = {"ts": pa.array([90_000])}
    assert times_of(tmp_path, columns) == 90_000.0
    assert times_of(tmp_path, columns, mapping=LogMapping(units={"ts": "ms"})) == 90.0


@pytest.mark.parametrize(
    "array",
    [
        pa.array([20, None, 21], pa.int16()),
        pa.array([20, None, 21], pa.uint64()),
        pa.array([20.0, float("nan"), 21.0], pa.float32()),
        pa.array([20.0, None, 21.0]),
        pa.array([Decimal("20.00"), None, Decimal("21.00")]),
        pa.array(["20", None, " 21 "]),
        pa.array(["20", "n/a", "21"]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_channels_of_every_type(tmp_path, array):
    path = written(tmp_path, {"timestamp": pa.array([1.0, 2.0, 3.0]), "temp": array, "cpu_pct": [1, 2, 3]})
    devices, report = read(path)
    assert np.array_equal(devices[""][1]["ambient_temp_c"], [20.0, np.nan, 21.0], equal_nan=True)
    assert report.values == {}


def test_dirt_is_counted_as_in_csv(tmp_path):
    path = written(
        tmp_path,
        {
            "timestamp": ["2024-01-01T00:00:00", None, "soon", "2024-01-01T00:00:06", "2024-01-01T00:00:08"],
            "cpu_temp": ["50", "50", "50", None, "hot"],
            "humidity": pa.array([[1.0]] * 5),
            "host": ["a", "a", "b", "b", "b"],
            "mood": ["blue"] * 5,
            "disk_pct": pa.array([1.0, 1.0, 1.0, None, 2.0]),
        },
    )
    devices, report = read(path)
    assert {name: len(found[0]) for name, found in devices.items()} == {"a": 1, "b": 1}
    assert report.rows == 5
    assert report.dropped == {"unreadable time": 2, "no value": 1}
    assert report.values == {"not a number": 6}
    assert report.ignored == ["mood"]
    assert report.notes == ["a time that could not be read: 'soon'"]
    assert report.mapped == {
        "cpu_temp": "cpu_temp_c",
        "humidity": "humidity_pct",
        "disk_pct": "disk_pct",
    }


def test_the_same_readings_as_from_csv(shared_data, tmp_path):
    source = shared_data / "piweather_sensehat.raw_order.csv.gz"
    log = read_log(source)
    table = pyarrow.csv.read_csv(source)
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=700)
    devices, report = read(tmp_path / "log.parquet")
    ((times, channels),) = devices.values()
    assert np.array_equal(times, log.devices[""].times)
    for name, values in log.devices[""].channels.items():
        assert np.array_equal(channels[name], values, equal_nan=True)
    assert report.to_dict() == log.report.to_dict()


def test_units_and_mapping_as_in_csv(tmp_path):
    path = written(
        tmp_path, {"when": [1.0, 2.0], "temp_f": [68.0, 50.0], "p": [101_325, 101_000], "x.y": [30.0, None]}
    )
    mapping = LogMapping(
        columns={"when": "time", "p": "pressure_hpa", "x.y": "humidity_pct"},
        units={"temp_f": "°F", "p": "Pa"},
    )
    devices, report = read(path, mapping=mapping)
    channels = devices[""][1]
    assert channels["ambient_temp_c"].tolist() == [20.0, 10.0]
    assert channels["pressure_hpa"].tolist() == [1013.25, 1010.0]
    assert channels["humidity_pct"][0] == 30.0
    assert report.converted == {"temp_f": "°F", "p": "Pa"}
    with pytest.raises(ConfigurationError, match="no column 'q'"):
        read(path, mapping=LogMapping(columns={"q": "cpu_pct"}))


def test_a_wide_file_is_read_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_log, "_ROWS", 100)
    columns = {f"other_{i}": np.zeros(1050) for i in range(300)}
    path = written(tmp_path, {"timestamp": np.arange(1050.0), "cpu_pct": np.arange(1050.0) % 100} | columns)
    report = LogReport()
    sizes = [len(readings) for _, readings in parquet_log.stream_readings(path, report=report)]
    assert max(sizes) == 100 and sum(sizes) == report.rows == 1050
    assert len(report.ignored) == 300


def test_refusals(tmp_path):
    with pytest.raises(SourceError, match="no channel column"):
        read(written(tmp_path, {"timestamp": [1.0], "mood": ["blue"]}))
    with pytest.raises(SourceError, match="2 lines, none usable"):
        read(written(tmp_path, {"timestamp": pa.array([None, None], pa.float64()), "cpu_pct": [1, 2]}))
    with pytest.raises(SourceError, match="No such file"):
        read(tmp_path / "absent.parquet")


@pytest.mark.parametrize("damage", ["cut", "footer", "page", "bit"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    rng = np.random.default_rng(0)
    columns = {"timestamp": np.arange(50_000.0), "cpu_pct": rng.random(50_000)}
    path = written(tmp_path, columns, use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-1000]
    elif damage == "footer":
        data[-200:-8] = bytes(192)
    elif damage == "page":
        data[20:4000] = bytes(3980)
    else:
        data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="log.parquet"):
        read(path)


def test_mapping_files(tmp_path):
    data = {"columns": {"Außen": "ambient_temp_c"}, "units": {"Außen": "°F"}, "timezone": "Europe/Berlin"}
    (tmp_path / "mapping.json").write_text(json.dumps(data), "utf-8")
    (tmp_path / "mapping.yaml").write_text(
        "# our log\ncolumns:\n  Außen: ambient_temp_c\nunits: {Außen: °F}\ntimezone: Europe/Berlin\n", "utf-8"
    )
    expected = LogMapping({"Außen": "ambient_temp_c"}, {"Außen": "°F"}, "Europe/Berlin")
    assert read_mapping(tmp_path / "mapping.json") == expected
    assert read_mapping(tmp_path / "mapping.yaml") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("units: {humidity: %}", "mapping.yaml: .*%"),
        ("- a\n- b", "list"),
        ("units: {pressure: 3}", "units: "),
        ("columns: {x: mood}", "mapping.yaml: column 'x' mapped to 'mood'"),
        ("units: {x: parsec}", "parsec"),
        ("unit: {x: Pa}", "unit"),
        ("\0", "mapping.yaml"),
    ],
)
def test_mapping_files_that_are_refused(tmp_path, text, reason):
    (tmp_path / "mapping.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=reason):
        read_mapping(tmp_path / "mapping.yaml")
    with pytest.raises(ConfigurationError, match="No such file"):
        read_mapping(tmp_path / "absent.yaml")


@pytest.mark.parametrize("column", ["temp_f", "Temperature (°F)", 'a "temp" f', "temp: °F"])
def test_the_line_that_a_note_gives_works_as_it_stands(tmp_path, column):
    path = tmp_path / "log.csv"
    quoted = column.replace('"', '""')
    path.write_text(f'timestamp,"{quoted}",cpu_pct\n1,68,1\n', "utf-8")
    notes = read_log(path).report.notes
    if column.startswith("a "):
        assert notes == []  # no name that is known
        return
    (tmp_path / "mapping.yaml").write_text(notes[0].partition("mapping file: ")[2] + "\n", "utf-8")
    log = read_log(path, mapping=read_mapping(tmp_path / "mapping.yaml"))
    assert log.devices[""].channels["ambient_temp_c"].tolist() == [20.0]
