"""An exception in the loop, raised while another is handled, with a note."""

import tiny


def look_up(step):
    try:
        {}[step]
    except KeyError as error:
        error.add_note(f"at step {step}")
        raise ValueError("no such step") from error


tiny.train(at_step=lambda step: look_up(step) if step == 3 else print("step", step))
