from mixup.report.rollouts_page import (
    RolloutsDigest,
    ShownGroup,
    ShownRollout,
    ShownStep,
    render_rollouts_page,
)

NAMES = ("quality", "format")


def rollout(index: int, **changed) -> ShownRollout:
    values = {
        "index": index,
        "text": f"answer {index}",
        "tokens": 7,
        "finish": "stop",
        "rewards": {"quality": 0.25, "format": 1.0},
        "reward": 0.375,
        "advantage": 1.5,
        "reason": None,
    }
    return ShownRollout(**{**values, **changed})


def page(*rollouts: ShownRollout, question: str = "Q: a?") -> str:
    group = ShownGroup("ab" * 16, "qa", question, rollouts)
    means = {"quality": 0.25, "format": None}
    shown = ShownStep(0, 1, 4, 1, 0.375, means, [group])
    rest = ShownStep(1, 2, 4, 0, 0.5, means, [])
    measured = [(0, 0.4, 0.05), (1, None, None)]
    digest = RolloutsDigest("t-1", "m", "b", NAMES, [shown, rest], measured)
    return render_rollouts_page(digest)


def test_steps_groups_and_answers_are_shown():
    html = page(rollout(0), rollout(1, advantage=None, reason="no_reward", reward=None))
    assert 'href="#step-0"' in html
    assert 'href="#step-1"' not in html  # its answers are not shown
    assert "advantage +1.50" in html
    assert "Left out" in html
    assert "No reward" in html
    assert "answer 0" in html
    assert ">8<" in html  # rollouts in all


def test_text_of_the_data_is_inert():
    html = page(rollout(0, text="<script>alert(1)</script>\x07"), question="<img src=x>")
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    assert "\x07" not in html


def test_a_missing_component_is_called_missing():
    html = page(rollout(0, rewards={"quality": None, "format": 0.0}))
    assert html.count(">missing<") == 1
