"""The command `scav doctor`."""


def doctor(visual: str | None = None, audio: str | None = None, json: bool = False) -> None:
    """Checks this installation: torch, kernels, GPU, the result of every distance, extras and encoders.

    Args:
        visual: Front end to load, as scav extract takes it, so that its weights are checked; null loads none.
        audio: Front end of the sound to load, in the same way.
        json: Print the findings as JSON, to attach to a report.
    """
    from scav_model.doctor import report

    if problems := report(visual, audio, as_json=json):
        raise RuntimeError(f"found {problems} problem{'s' * (problems > 1)}, listed above")
