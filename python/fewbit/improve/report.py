"""What improving a model's codes has gained, tensor by tensor, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from fewbit.improve.tensors import TensorGain
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Improvement(Shown):
    """The gains of a model's tensors, made with `effort` from the windows that `source` names.

    `distilled` is the KL divergence on held-out windows before and after scales and norms were
    adjusted, nats per token; None if they were not.
    """

    effort: str
    source: str
    gains: tuple[TensorGain, ...]
    warnings: tuple[str, ...] = ()
    distilled: tuple[float, float] | None = None

    @property
    def predicted(self) -> float | None:
        """The predicted KL divergence of all products, nats per token; None without gradients."""
        found = [gain.predicted[1] for gain in self.gains if gain.predicted is not None]
        return sum(found) if found else None

    @property
    def kept(self) -> tuple[TensorGain, ...]:
        """The tensors that keep plain codes."""
        return tuple(gain for gain in self.gains if not gain.improved)

    @property
    def ratio(self) -> float:
        """The median over tensors of the output error over that of plain codes."""
        return median(gain.ratio for gain in self.gains) if self.gains else 1.0

    def line(self) -> str:
        """The gain in one line."""
        better = len(self.gains) - len(self.kept)
        return (
            f"codes: {better} of {len(self.gains)} tensors improved on {self.source}; output error "
            f"{self.ratio:.2f} of that of plain codes (median, held-out windows)"
        )

    def notes(self) -> list[str]:
        """The gain, tensors that keep plain codes, and warnings."""
        lines = [self.line()]
        for reason in dict.fromkeys(gain.reason for gain in self.kept):
            names = [gain.name for gain in self.kept if gain.reason == reason]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"plain codes kept for {', '.join(names[:3])}{more}: {reason}")
        if self.predicted is not None:
            lines.append(f"predicted KLD of the products: {self.predicted:.5f} nats per token")
        if self.distilled is not None:
            before, after = self.distilled
            lines.append(f"KLD on held-out windows: {before:.5f}, with adjusted scales {after:.5f}")
        return lines + [f"warning: {warning}" for warning in self.warnings]

    def page(self) -> Page:
        """A line per tensor: its output errors with plain codes and with these."""
        table = Table(
            ("tensor", "format", "tokens", "plain", "improved", "ratio", "ratio\nfitted", "codes"),
            text=2,
        )
        for gain in self.gains:
            fitted = gain.fitted[1] / gain.fitted[0] if gain.fitted[0] > 0 else 1.0
            table.add_row(
                gain.name, gain.format, f"{gain.tokens:,}", f"{gain.held_out[0]:.4g}",
                f"{gain.held_out[1]:.4g}", f"{gain.ratio:.3f}", f"{fitted:.3f}",
                "improved" if gain.improved else "plain",
            )  # fmt: skip
        return [table, "", *self.notes()]
