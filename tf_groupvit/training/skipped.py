"""Names of broken records and what is wrong with them in, a few lines to tell at the end out."""

SHOWN = 10


class Skipped(dict[str, str]):
    """Name -> reason of every record that was left out, each once."""

    def add(self, name: str, reason: str) -> None:
        self[name] = " ".join(reason.split())

    def summary(self, shown: int = SHOWN) -> str:
        """How many there are, and the first ones by name, one a line."""
        if not self:
            return "no records were skipped"
        count = f"{len(self)} record{'s were' if len(self) > 1 else ' was'} skipped:"
        lines = [f"  {name}: {reason}" for name, reason in list(self.items())[:shown]]
        more = [f"  and {len(self) - shown} more"] if len(self) > shown else []
        return "\n".join([count, *lines, *more])

    def in_one_line(self) -> str:
        """How many there are, and the first one by name: for an error."""
        if not self:
            return "no records were skipped"
        name, reason = next(iter(self.items()))
        return f"{len(self)} records were skipped, the first of them {name}: {reason}."
