"""Mapping files: what a user declares about the columns of a log, as YAML or JSON.

columns: {"Außen": ambient_temp_c, "Zeit": time}
units: {"Außen": "°F"}
timezone: Europe/Berlin
time_format: "%d.%m.%Y %H:%M"
"""

from pathlib import Path

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.log_columns import LogMapping


def read_mapping(path: Path) -> LogMapping:
    """The mapping of a file; JSON is read as the YAML that it is.

    Raises:
        ConfigurationError: The file cannot be read, is no YAML, or declares something unknown.
    """
    import yaml  # most builds have no mapping

    try:
        data = yaml.safe_load(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise _refused(f"{path.name}: {reason}") from error
    if data is None:
        raise _refused(f"{path.name}: an empty file")
    try:
        return LogMapping.from_dict(data)
    except ConfigurationError as error:
        raise ConfigurationError(
            found=f"{path.name}: {error.found}", expected=error.expected, next=error.next
        ) from error


def _refused(found: str) -> ConfigurationError:
    return ConfigurationError(
        found=found,
        expected='a YAML or JSON file such as: units: {"temp_f": "°F"}',
        next='correct the file; put names and units such as "%" in quotes',
    )
