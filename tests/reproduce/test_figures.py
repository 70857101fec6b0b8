"""`python -m kronext reproduce`: every figure from the command line to its files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import kronext.reproduce
from kronext.cli import main
from kronext.reproduce import FIGURES, PRESETS
from kronext.reproduce.experiments import EXPERIMENTS


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    assert main(["reproduce", "all", "--preset", "quick", "--output", str(folder)]) == 0
    return folder


def result(output: Path, name: str) -> dict:
    return json.loads((output / f"{name}.json").read_text())


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_drawn(output, figure):
    assert (output / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    svg = (output / f"{figure}.svg").read_text()
    assert svg.rstrip().endswith("</svg>")
    assert len(svg) < 300_000


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_results_say_what_was_run(output, name):
    found = result(output, name)
    settings = PRESETS["quick"][name]
    assert found["preset"] == "quick"
    assert found["seed"] == 0
    assert "scikit-learn" in found["data"]["name"]
    assert found["settings"]["learning_rate"] == settings.learning_rate
    assert {"version", "torch"} <= found["versions"].keys()
    assert found["seconds"] > 0
    assert [m["step"] for m in found["measurements"]] == settings.measured_steps()
    assert settings.measured_steps()[-1] == settings.steps


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_similarity_is_a_cosine_and_the_optimum_is_the_largest(output, name):
    rounding = 1e-5
    for measurement in result(output, name)["measurements"]:
        assert measurement["loss"] > 0
        layers = EXPERIMENTS[name].layers(PRESETS["quick"][name])
        assert list(measurement["layers"]) == list(layers)
        for layer in measurement["layers"].values():
            for matrix in ("gauss_newton", "adagrad"):
                values = layer[matrix]
                assert all(0 < value <= 1 + rounding for value in values.values())
                # Five rounds come near the leading singular pair, and nothing lies beyond it.
                others = {key: values[key] for key in values if key not in ("left", "right")}
                assert max(others.values()) <= values["leading"] + 2e-4
                assert values["optimal"] >= max(values["shampoo2"], values["shampoo"]) - rounding
                assert min(values["left"], values["right"]) >= values["shampoo2"] - rounding


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_results_are_of_the_preset_as_it_is(name):
    found = result(Path(__file__).parents[2] / "docs" / "figures" / "paper", name)
    assert found["complete"]
    settings = asdict(PRESETS[found["preset"]][name])
    assert found["settings"] == json.loads(json.dumps(settings))


def test_curves_of_the_figures_are_measured(output):
    for figure in FIGURES.values():
        for experiment, layer in figure.panels.values():
            for measurement in result(output, experiment)["measurements"]:
                values = list(measurement["layers"].values())[layer]
                for row in figure.rows:
                    assert {curve.key for curve in row.curves} <= values[row.matrix].keys()


def test_shampoo2_is_exact_for_logistic_regression(output):
    for measurement in result(output, "mnist")["measurements"]:
        values = measurement["layers"]["linear"]["gauss_newton"]
        assert values["shampoo2"] == pytest.approx(1, abs=1e-5)
        assert values["shampoo"] < 0.95


def test_a_second_figure_of_the_same_runs_only_draws(output, monkeypatch, capsys):
    def never(*_):
        raise AssertionError("a complete run must not be measured again")

    monkeypatch.setattr("kronext.reproduce.runs.GaussNewtonMeter", never)
    before = {path: path.read_bytes() for path in output.glob("fig4.*")}
    for path in before:
        path.unlink()
    assert main(["reproduce", "fig4", "--preset", "quick", "--output", str(output)]) == 0
    assert {path: path.read_bytes() for path in output.glob("fig4.*")} == before
    assert "K-FAC" in capsys.readouterr().out


def test_panels_choose_the_runs(tmp_path):
    arguments = ["reproduce", "fig5", "--preset", "quick", "--output", str(tmp_path)]
    assert main([*arguments, "--panels", "qk"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"vit.json", "fig5.png", "fig5.svg"}
    arguments = ["reproduce", "fig3", "--preset", "quick", "--output", str(tmp_path / "3")]
    assert main([*arguments, "--panels", "resnet"]) == 0
    names = {path.name for path in (tmp_path / "3").iterdir()}
    assert names == {"resnet.json", "fig3.png", "fig3.svg"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig1"], "--data must name the data sets for --preset small (got none); --preset quick"),
        (["fig1", "--preset", "paper"], "--data must name the data sets for --preset paper"),
        (["fig1", "--data", "{folder}"], "for mnist (got other.txt); --preset quick"),
        (["fig5", "--data", "{folder}"], "cifar-10-batches-py, cifar10* for cifar"),
        (["fig1", "--data", "{folder}/missing"], "--data must exist"),
        (["fig1", "--panels", "vit"], "panels of fig1 must be among mnist, resnet, convnext"),
        (["fig1", "--preset", "quick", "--device", "cuda:9"], "device must be present"),
        (
            ["fig5", "--preset", "quick", "--device", "gpu"],
            "reproduce: device must be cpu or cuda (got device=gpu)",
        ),
        (["fig5", "--preset", "quick", "--device", "mps"], "must be cpu or cuda (got device=mps)"),
    ],
)
def test_mistakes_are_explained_before_anything_is_done(tmp_path, capsys, arguments, message):
    data, output = tmp_path / "data", tmp_path / "output"
    data.mkdir()
    (data / "other.txt").touch()
    arguments = [argument.format(folder=data) for argument in arguments]
    assert main(["reproduce", *arguments, "--output", str(output)]) == 2
    assert message in capsys.readouterr().out
    assert not output.exists()


def test_a_gpu_beyond_the_last_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    # torch takes the number for one of eight bits.
    for device in ("cuda:2", "cuda:200"):
        with pytest.raises(ValueError, match=rf"must be present \(got device={device}, 2 GPUs\)"):
            kronext.reproduce.reproduce(["fig5"], tmp_path, preset="quick", device=device)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["fig6"], ["fig1", "--preset", "tiny"]])
def test_unknown_names_are_refused_by_the_parser(arguments):
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", *arguments])
    assert caught.value.code == 2


def test_the_function_refuses_unknown_names(tmp_path):
    with pytest.raises(ValueError, match=r"figure must be one of fig1.*\(got 'fig9'\)"):
        kronext.reproduce.reproduce(["fig9"], tmp_path, preset="quick")
    with pytest.raises(ValueError, match=r"preset must be one of .*\(got 'tiny'\)"):
        kronext.reproduce.reproduce(["fig1"], tmp_path, preset="tiny")


def test_other_results_in_the_folder_are_an_error(output, capsys):
    arguments = ["reproduce", "fig1", "--preset", "quick", "--output", str(output), "--seed", "5"]
    assert main(arguments) == 2
    assert "must be of the same run" in capsys.readouterr().out


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kronext.reproduce.runs.GaussNewtonMeter", interrupt)
    arguments = ["reproduce", "fig5", "--preset", "quick", "--output", str(tmp_path)]
    assert main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().out
