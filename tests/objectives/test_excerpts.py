"""Each task's answers against what was done to the clips."""

import math
from collections import Counter

import av
import numpy as np
import pytest
import torch

from scav_model.data import Batch, collate, open_features
from scav_model.data.decode import Limits, Media
from scav_model.data.excerpts import Excerpts, cut_features, play
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip, read_manifest, write_manifest
from scav_model.data.player import plain_player
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
from scav_model.objectives.pretext import OVERLAPPING, SPEEDS, draw_ordering, draw_playback

RATE = 16_000


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def numbered(lengths, audio_lengths):
    """Clips whose steps are their own numbers, counted from 1."""

    def side(counts):
        steps = torch.arange(1, max(counts) + 1.0).repeat(len(counts), 1)
        return steps.masked_fill(steps > torch.tensor(counts)[:, None], 0)[..., None], torch.tensor(counts)

    return Batch(*side(lengths), *side(audio_lengths), [f"clip{i}" for i in range(len(lengths))])


def shown(batch):
    """Step numbers of every excerpt, by modality."""
    sides = ((batch.video, batch.video_lengths), (batch.audio, batch.audio_lengths))
    return [[row[:n, 0].long().tolist() for row, n in zip(steps, counts, strict=True)] for steps, counts in sides]


def test_playback_answers_are_the_speed_and_direction_of_the_steps(generator):
    count = 400
    lengths = torch.randint(16, 60, (2, count), generator=generator).tolist()
    clips = numbered(*lengths)
    plans = [draw_playback(count, generator, speed=True, direction=True) for _ in range(2)]
    cut = cut_features(clips, plans[0].excerpts, plans[1].excerpts)
    for side, plan, counts in zip(shown(cut), plans, lengths, strict=True):
        for steps, speed, direction, length in zip(side, plan.speed, plan.direction, counts, strict=True):
            # The same share of the clip at every speed, so that its length gives nothing away.
            assert len(steps) == length // 8 >= 2
            assert set(np.diff(steps).tolist()) == {SPEEDS[speed] * (-1 if direction else 1)}
            assert min(steps) >= 1
            assert max(steps) <= length
        assert Counter(plan.speed.tolist()).keys() == {0, 1, 2, 3}
        assert 140 < plan.direction.sum() < 260
    assert (plans[0].speed != plans[1].speed).any()
    beyond = torch.arange(cut.video.shape[1]) >= cut.video_lengths[:, None]
    assert (cut.video[..., 0][beyond] == 0).all()


def test_a_task_that_is_off_changes_nothing(generator):
    plan = draw_playback(50, generator, speed=False, direction=True)
    assert (plan.excerpts.speed == 1).all()
    assert plan.excerpts.backwards.any()
    plan = draw_playback(50, generator, speed=True, direction=False)
    assert not plan.excerpts.backwards.any()
    assert (plan.excerpts.speed > 1).any()


def test_ordering_answers_are_how_the_two_excerpts_lie(generator):
    count = 600
    lengths = torch.randint(30, 60, (2, count), generator=generator).tolist()
    clips = numbered(*lengths)
    plan = draw_ordering(count, generator)
    first, second = (shown(cut_features(clips, part, part)) for part in (plan.first, plan.second))
    begins = Counter()
    for one in (0, 1):
        for earlier, later, order in zip(first[one], second[one], plan.order.tolist(), strict=True):
            assert len(earlier) == len(later) >= 9
            if order == OVERLAPPING:
                assert set(earlier) & set(later)
                assert earlier != later
                begins[earlier[0] < later[0]] += 1
            else:
                before, after = (later, earlier) if order else (earlier, later)
                # Rounding may let neighbors share a step's place, but no step.
                assert before[-1] < after[0] <= before[-1] + 8
    assert min(Counter(plan.order.tolist()).values()) > 150
    assert min(begins[True], begins[False]) > 100
    for one in (0, 1):
        for part, counts in ((first[one], lengths[one]), (second[one], lengths[one])):
            assert all(steps[0] >= 1 and steps[-1] <= n for steps, n in zip(part, counts, strict=True))


def test_both_modalities_of_an_excerpt_are_of_the_same_time(generator):
    clips = numbered([40] * 100, [80] * 100)
    plan = draw_ordering(100, generator)
    video, audio = shown(cut_features(clips, plan.first, plan.first))
    for frames, sounds in zip(video, audio, strict=True):
        assert abs(sounds[0] - 1 - 2 * (frames[0] - 1)) <= 1
        assert len(sounds) == 2 * len(frames)


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_short_clips_give_what_they_have(length):
    clips = numbered([length], [length])
    for speed in SPEEDS:
        for start in (0.0, 0.5, 1.0):
            excerpt = Excerpts(torch.tensor([start]).double(), torch.tensor([speed]), torch.tensor([True]), 0.3)
            steps = shown(cut_features(clips, excerpt, excerpt))[0][0]
            assert 1 <= len(steps) <= max(1, length)
            assert all(1 <= step <= length for step in steps)
            assert steps == sorted(steps, reverse=True)


def excerpt(start, speed, backwards, share=1 / 8):
    return Excerpts(torch.tensor([start]).double(), torch.tensor([speed]), torch.tensor([backwards]), share)


def loudest(samples):
    """Frequency in Hz."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * RATE / len(samples)


@pytest.mark.parametrize("speed", SPEEDS)
def test_sound_played_faster_is_shorter_and_higher(speed):
    time = np.arange(4 * RATE) / RATE
    media = Media(np.zeros((50, 2, 2, 3), np.uint8), (0.5 * np.sin(2 * np.pi * 500 * time)).astype(np.float32))
    part = excerpt(0.0, speed, False)
    played = play(media, part, part, 0)
    assert len(played.audio) == RATE // 2
    assert loudest(played.audio) == pytest.approx(500 * speed, abs=4)


def test_sound_backwards_is_its_samples_turned_round():
    """A click that comes early comes late, and rings before it strikes."""
    audio = np.zeros(4 * RATE, np.float32)
    audio[1000:3000] = np.exp(-np.arange(2000) / 400)
    media = Media(np.zeros((50, 2, 2, 3), np.uint8), audio)
    forwards, backwards = (play(media, excerpt(0.0, 1, way), excerpt(0.0, 1, way), 0).audio for way in (False, True))
    assert np.array_equal(forwards[::-1], backwards)
    assert forwards.argmax() == 1000
    twice = play(media, excerpt(0.0, 2, True), excerpt(0.0, 2, True), 0).audio
    assert abs(twice.argmax() - (RATE // 2 - 500)) < 5


@pytest.mark.parametrize(("speed", "backwards"), [(1, False), (4, False), (8, True), (2, True)])
def test_frames_are_played_as_told(speed, backwards):
    frames = np.arange(50, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    part = excerpt(0.1, speed, backwards) if speed < 8 else excerpt(0.0, speed, backwards)
    numbers = play(Media(frames, np.zeros(RATE, np.float32)), part, part, 0).frames[:, 0, 0, 0].astype(int)
    assert len(numbers) == 6
    assert set(np.diff(numbers)) == {-speed if backwards else speed}
    assert min(numbers) == (5 if speed < 8 else 0)


@pytest.fixture
def clip_file(tmp_path):
    """Four seconds: a picture that brightens steadily and a tone that falls from 2000 Hz to 500 Hz."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(100):
            picture = np.full((64, 64, 3), 30 + 2 * index, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        time = np.arange(4 * RATE) / RATE
        cycles = 2000 * time - 375 * time**2 / 2
        block = av.AudioFrame.from_ndarray(
            0.5 * np.sin(2 * np.pi * cycles)[None].astype(np.float32), format="fltp", layout="mono"
        )
        block.sample_rate, block.pts = RATE, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def test_decoded_clips_against_stored_features(clip_file, tmp_path):
    """Features of single frames are the same either way; those of sound are so only at their own speed and forwards."""
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, [Clip("clip", clip_file, "train")])
    config = ExtractionConfig(frame_rate=12.5, workers=0)
    extract(read_manifest(manifest), tmp_path / "features", FramePatchEncoder(), LogMelEncoder(), config)
    batch = collate(open_features(tmp_path / "features"), [0])
    player = plain_player(manifest, 12.5, threads=1)
    gap = {}
    for speed in SPEEDS:
        for backwards in (False, True):
            part = excerpt(0.0, speed, backwards)
            stored, true = cut_features(batch, part, part), player(batch, part, part)
            torch.testing.assert_close(true.video, stored.video)
            assert torch.equal(true.video_lengths, stored.video_lengths)
            assert torch.equal(true.audio_lengths, stored.audio_lengths)
            gap[speed, backwards] = (true.audio[:, 1:-1] - stored.audio[:, 1:-1]).abs().mean().item()
    assert gap[1, False] < 0.02
    assert min(value for key, value in gap.items() if key != (1, False)) > 5 * gap[1, False]
    # Brighter from step to step forwards, darker backwards, and the faster the more.
    brightness = [
        player(batch, excerpt(0.0, speed, way), excerpt(0.0, speed, way)).video[0, :, 0].diff().mean().item()
        for speed, way in ((1, False), (4, False), (4, True))
    ]
    assert brightness[1] == pytest.approx(4 * brightness[0], rel=0.1) == pytest.approx(-brightness[2], rel=0.1)
    assert math.copysign(1, brightness[0]) == 1


def test_clips_that_cannot_be_played_are_named(clip_file, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, [Clip("clip", clip_file, "train")])
    player = plain_player(manifest, 12.5, threads=1)
    part = excerpt(0.0, 1, False)
    with pytest.raises(ValueError, match="has no clip 'clip0', which is trained on"):
        player(numbered([20], [20]), part, part)
    known = numbered([20], [20])
    known.ids = ["clip"]
    with pytest.raises(ValueError, match="the features have 1 and 1 numbers per step"):
        player(known, part, part)
    player = plain_player(manifest, 12.5, threads=1, limits=Limits(max_seconds=1e-3))
    with pytest.raises(ValueError, match=r"clip 'clip' cannot be played, .*max_seconds"):
        player(known, part, part)
    clip_file.write_bytes(b"no film")
    player = plain_player(manifest, 12.5, threads=1)
    known = Batch(torch.zeros(1, 20, 384), torch.tensor([20]), torch.zeros(1, 20, 256), torch.tensor([20]), ["clip"])
    with pytest.raises(ValueError, match=r"clip 'clip' cannot be played, .*clip.mp4: not a readable media file"):
        player(known, part, part)
