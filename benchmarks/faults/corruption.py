"""Single bytes of a release changed at random: every one must be noticed."""

import random
from pathlib import Path

from benchmarks.faults.outcome import Trial
from eisv_lumen import release
from eisv_lumen.artifact import canonical_json
from eisv_lumen.device import slots
from eisv_lumen.errors import VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import Release
from eisv_lumen.signing import RELEASE_PURPOSE, SigningKey, TrustedKeys
from tests.release_artifacts import REPO_IDS, describe, release_folders, small_student


class SignedRelease:
    """All folders of a release beside each other, and a device's slot of it.

    Args:
        folder: Where they are made.
    """

    def __init__(self, folder: Path) -> None:
        key = SigningKey.generate()
        self.trusted = TrustedKeys([key.public])
        self.folders = release_folders(folder, small_student(folder / "small"))
        self.manifest = describe("0.1.0", REPO_IDS["student"], self.folders["student"])
        content = self.manifest.to_bytes()
        self.slot = folder / "slot"
        signature = canonical_json(key.sign(content, RELEASE_PURPOSE))
        files = {name: (self.folders["student"] / name).read_bytes() for name in slots.FILES}
        for name, data in {**files, STUDENT.release: content, STUDENT.signature: signature}.items():
            (self.slot / name).parent.mkdir(parents=True, exist_ok=True)
            (self.slot / name).write_bytes(data)
        self.records = {role: release.record_files(path) for role, path in self.folders.items()}

    def trial(self, generator: random.Random) -> Trial:
        """Change one byte of one file, in the slot or in any folder, and put it back."""
        role = generator.choice(("slot", "slot", *self.folders))
        folder = self.slot if role == "slot" else self.folders[role]
        path = generator.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
        content = path.read_bytes()
        at = generator.randrange(len(content))
        changed = bytearray(content)
        changed[at] ^= generator.randint(1, 255)
        path.write_bytes(changed)
        try:
            accepted = self._is_accepted(role)
        finally:
            path.write_bytes(content)
        name = f"{role}/{path.relative_to(folder).as_posix()}"
        losses = (f"{name}: byte {at} changed from {content[at]} to {changed[at]}",) if accepted else ()
        return Trial("accepted" if accepted else "refused", losses, (name,))

    def check(self) -> Release:
        """The unchanged release is accepted.

        Raises:
            VerificationError: It is not.
        """
        for role in self.folders:
            release.verify_files(self.folders[role], self.records[role])
        return slots.verify_slot(self.slot, self.trusted)

    def _is_accepted(self, role: str) -> bool:
        try:
            if role == "slot":
                slots.verify_slot(self.slot, self.trusted)
            else:
                release.verify_files(self.folders[role], self.records[role])
        except VerificationError:
            return False
        return True
