import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwatt.demo.load import Load, Shape
from tokenwatt.demo.profiles import CHAT_8B, CHAT_70B, CODE_32B, Profile
from tokenwatt.demo.steps import STEP_NS

S = 10**9
HOUR_NS = 3600 * S
DAY = Shape(peak=96, day_s=1200, phase=0.35)


def _load(shape: Shape = DAY, profile: Profile = CHAT_8B, seed: int = 1, origin_ns: int = 0) -> Load:
    return Load(profile, shape, seed=seed, name="chat", origin_ns=origin_ns)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, HOUR_NS // 4), min_size=1, max_size=6), st.integers(0, 5))
def test_any_order_of_asking_tells_one_history(instants: list[int], seed: int) -> None:
    load = _load(seed=seed)
    first = [load.at(t) for t in instants]
    assert first == [_load(seed=seed).at(t) for t in instants]  # each from scratch
    assert first == [load.at(t) for t in instants]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 600 * S), st.lists(st.integers(1, 3 * STEP_NS), min_size=50, max_size=50))
def test_totals_never_fall(start_ns: int, gaps: list[int]) -> None:
    load = _load(Shape(peak=140, burst_s=(2, 3)), CHAT_70B)
    before, t_ns = load.at(start_ns), start_ns
    for gap in gaps:
        t_ns += gap
        now = load.at(t_ns)
        assert all(n >= b for n, b in zip(now[:6], before[:6], strict=True))
        before = now


def test_the_seed_makes_the_history_and_the_origin_only_shifts_it() -> None:
    assert _load(seed=1).at(300 * S) != _load(seed=2).at(300 * S)
    assert _load(origin_ns=12_345_678_901).at(12_345_678_901 + 300 * S) == _load().at(300 * S)


def test_nothing_is_counted_before_the_origin() -> None:
    assert _load(origin_ns=100 * S).at(0)[:6] == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("profile", "shape"), [(CHAT_8B, DAY), (CODE_32B, Shape(24, burst_s=(2, 6))), (CHAT_70B, Shape(140, 1200, 0.4, (8, 8)))]
)
def test_requests_add_up(profile: Profile, shape: Shape) -> None:
    load = _load(shape, profile)
    for k in range(4000):
        step = load.step(k)
        assert step.started - step.finished == step.running - step.ending  # those that go on
        assert 0 <= step.running <= profile.max_running
        assert 0 <= step.prefill_permille <= 1000
        assert step.waiting >= 0
        assert step.running + step.waiting <= round(shape.peak * 1.15)
    assert step.finished > 100


def test_prompts_have_the_length_and_the_hits_of_the_profile() -> None:
    total = _load(Shape(peak=64)).at(HOUR_NS // 4)
    prompt = total.prompt_computed + total.prompt_cached
    assert prompt / total.started == pytest.approx(CHAT_8B.prompt_tokens, rel=0.05)
    assert total.prompt_cached / prompt == pytest.approx(CHAT_8B.hit_permille / 1000 * 0.625, rel=0.1)
    assert total.generation / total.finished == pytest.approx(CHAT_8B.output_tokens, rel=0.05)  # demand that falls ends some early


def test_bursts_are_on_and_off_to_the_second() -> None:
    load = _load(Shape(peak=24, burst_s=(2, 6)), CODE_32B)
    busy = [load.at(t * S // 4).running > 0 for t in range(4 * 40)]
    assert busy == [t % 32 < 8 for t in range(4 * 40)]


def test_a_quarter_of_the_day_is_night() -> None:
    load = _load()
    idle = sum(load.at(t * S).running == 0 for t in range(1200))
    assert idle == pytest.approx(300, abs=40)
    assert load.at(800 * S).generation == load.at(700 * S).generation  # midnight is at 780 s


def test_a_burst_waits_for_its_prefill() -> None:
    load = _load(Shape(peak=128, burst_s=(8, 8)), CHAT_70B)
    running = [load.step(k).running for k in range(32)]
    assert running[0] < running[4] < running[16]
    assert load.step(0).waiting > 0
    assert load.step(0).prefill_permille == 1000


@pytest.mark.parametrize(
    ("profile", "batch", "tokens_per_s"),
    [
        (CHAT_8B, 8, 1070), (CHAT_8B, 64, 5147), (CHAT_8B, 512, 9806),
        (CODE_32B, 8, 522), (CODE_32B, 256, 5155),
        (CHAT_70B, 8, 470), (CHAT_70B, 128, 3876), (CHAT_70B, 1024, 6827),
    ],
)  # fmt: skip
def test_decoding_is_as_fast_as_was_measured(profile: Profile, batch: int, tokens_per_s: int) -> None:
    # ML.ENERGY leaderboard v3, snapshot 2026-02-27
    assert profile.decode_millitokens(batch, S) / 1000 == pytest.approx(tokens_per_s, rel=0.02)
