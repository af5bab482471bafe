"""Make a signing key and the key set that devices trust.

python -m hub.keygen --out release-key.pem --public trusted-keys.json
"""

import argparse
from pathlib import Path

from eisv_lumen.errors import ConfigurationError, exit_with_reason
from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted


def main() -> None:
    """Write a new private key (mode 600) and its public half."""
    parser = argparse.ArgumentParser(prog="python -m hub.keygen", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file for the private key; never overwritten")
    parser.add_argument(
        "--public", type=Path, help="new file for the trusted key set (default: beside it, .pub)"
    )
    arguments = parser.parse_args()
    public = arguments.public or arguments.out.with_suffix(".pub")
    if public.exists() or public.resolve() == arguments.out.resolve():
        raise ConfigurationError(
            found=f"{public}, which {'exists' if public.exists() else 'is to hold the private key'}",
            expected="a new file for the trusted key set",
            next="pass another --public; python -m hub.rotate brings a key into a set that devices trust",
        )
    key = SigningKey.generate()
    key.write(arguments.out)
    write_trusted(public, TrustedKeys([key.public]))
    print(f"signing key {key.key_id}: {arguments.out} (keep it secret), trusted by devices: {public}")


if __name__ == "__main__":
    exit_with_reason(main)
