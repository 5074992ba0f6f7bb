"""Break a copy of the installed package, or of the tests, in one line; see a test go red; for each.

``nox -s mutants``, or ``python tests/support/mutants.py [WORD]``: those whose promise or file has
WORD in it; ``--table`` prints a table of them. Exit code 1 if a break goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import densenet_multi

PACKAGE = Path(densenet_multi.__path__[0])
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    promise: str
    file: str  # in the package, or tests/...
    old: str  # occurs once
    new: str
    test: str  # goes red: a file, and a word for pytest -k
    needs: str = ""  # --backends, where it is neither that of the file nor that of the test

    @property
    def backends(self) -> str:
        """The one whose file is broken or whose test it is, unless the test needs others."""
        if self.needs:
            return self.needs
        for word in (
            self.file.split("/")[0],
            Path(self.test).name.removeprefix("test_native_").split("_")[0].split(".")[0],
        ):
            if (PACKAGE / word / "model.py").is_file():
                return word
        return "none"

    def source(self, package: Path = PACKAGE, tests: Path = TESTS) -> Path:
        """Where its file is."""
        name = self.file.removeprefix("tests/")
        return (package if name == self.file else tests) / name


FORWARD = "backends/test_parity.py logits_in_float64"
TRAINING = "backends/test_parity.py a_step_in_float64"
FIT = "backends/test_fit.py follow_the_rule"
COUNTS = "backends/test_parity.py counts_of_every_variant"

MUTANTS = [
    Mutant(
        "the stem is padded by 3 on every side, not SAME",
        "keras/_layers.py",
        'padded, kernel, self.strides, "VALID"',
        'inputs, kernel, self.strides, "SAME"',
        FORWARD,
    ),
    Mutant(
        "the same in Flax", "flax/layers.py", "padding=spec.padding,", 'padding="SAME",', FORWARD
    ),
    Mutant(
        "epsilon is 1e-5, not 1.001e-5",
        "torch/layers.py",
        "eps=spec.eps",
        "eps=1.001 * spec.eps",
        FORWARD,
    ),
    Mutant(
        "epsilon is not Keras' default of 1e-3",
        "keras/layers.py",
        ", epsilon=spec.eps",
        "",
        FORWARD,
    ),
    Mutant(
        "a ReLU follows the stem's BatchNorm",
        "torch/model.py",
        "self.pool0(relu(self.norm0(x)))",
        "self.pool0(self.norm0(x))",
        FORWARD,
    ),
    Mutant(
        "a ReLU precedes the transition's convolution",
        "gluon/model.py",
        "x = relu(self.norm(x))",
        "x = self.norm(x)",
        FORWARD,
    ),
    Mutant(
        "a transition may pool by the maximum",
        "keras/model.py",
        "else max_pool(spec.pool)",
        "else avg_pool(spec.pool)",
        FORWARD,
    ),
    Mutant(
        "maxima are taken after a transition's convolution",
        "torch/model.py",
        "return self.pool(self.conv(x))",
        "return self.conv(self.pool(x))",
        FORWARD,
    ),
    Mutant(
        "the last map may be pooled by the maximum",
        "flax/layers.py",
        "return jnp.max(x, axis=(1, 2))",
        "return jnp.mean(x, axis=(1, 2))",
        FORWARD,
    ),
    Mutant(
        "the reference pools a transition by the maximum where the spec says so",
        "reference.py",
        'pool = average_pool if transition.pool_kind == "avg" else max_pool',
        "pool = average_pool",
        "paper/test_reference.py matters_for_the_maximum",
    ),
    Mutant(
        "old channels come first",
        "flax/layers.py",
        "concatenate(maps",
        "concatenate(maps[::-1]",
        FORWARD,
    ),
    Mutant(
        "decay is what is kept (PyTorch's momentum is its complement)",
        "torch/layers.py",
        "round(1 - spec.decay, 15)",
        "spec.decay",
        TRAINING,
    ),
    Mutant(
        "decay is what is kept (Gluon)",
        "gluon/layers.py",
        "momentum=spec.decay",
        "momentum=1 - spec.decay",
        TRAINING,
    ),
    Mutant(
        "kernels are transposed, also where sizes are equal (OIHW read as HWIO)",
        "keras/weights.py",
        '"kernel", (2, 3, 1, 0)',
        '"kernel", (0, 1, 2, 3)',
        "backends/test_parity.py cubic",
    ),
    Mutant(
        "height and width are not exchanged",
        "flax/weights.py",
        '"kernel", (2, 3, 1, 0)',
        '"kernel", (3, 2, 1, 0)',
        FORWARD,
    ),
    Mutant(
        "an odd row and column are dropped by the transition's pooling",
        "torch/layers.py",
        "nn.AvgPool2d(spec.kernel_size, stride=spec.stride)",
        "nn.AvgPool2d(spec.kernel_size, stride=spec.stride, ceil_mode=True)",
        FORWARD,
    ),
    Mutant(
        "the max pool is padded",
        "gluon/layers.py",
        "strides=spec.stride, padding=spec.padding)",
        "strides=spec.stride, padding=0)",
        FORWARD,
    ),
    Mutant(
        "every convolution of the chapter's net has its bias",
        "gluon/layers.py",
        "use_bias=spec.bias",
        "use_bias=False",
        COUNTS,
    ),
    Mutant(
        "dropout is there",
        "flax/model.py",
        "return self.dropout(x)",
        "return x",
        "backends/test_parity.py dropout",
    ),
    Mutant(
        "dropout has the rate of the spec",
        "torch/layers.py",
        "nn.Dropout(rate)",
        "nn.Dropout(rate / 2)",
        "backends/test_parity.py dropout",
    ),
    Mutant(
        "a failed import leaves the model untouched",
        "keras/weights.py",
        "    checked = check_weights(model.spec, weights, dtype_of(model))\n",
        "    checked = weights\n",
        "backends/test_parity.py names_every_problem",
    ),
    Mutant(
        "the step runs in training mode",
        "torch/train.py",
        "    with in_mode(model, training=True):\n        scores",
        "    with in_mode(model, training=False):\n        scores",
        TRAINING,
    ),
    Mutant(
        "running statistics move in a step",
        "flax/train.py",
        "        nnx.update(model, rest)",
        "        pass",
        TRAINING,
    ),
    Mutant(
        "running statistics move by the decay also where layers share a map's",
        "flax/faster/_layers.py",
        "(1 - norm.momentum) * new",
        "new",
        TRAINING,
    ),
    Mutant(
        "maps that are read as one keep their own statistics",
        "flax/faster/training.py",
        "whole.moments = concat(*means), concat(*variances)",
        "whole.moments = concat(*means[::-1]), concat(*variances)",
        "backends/test_native_flax.py read_as_one",
        "flax",
    ),
    Mutant(
        "a mean has a gradient in the BatchNorm that trains",
        "flax/faster/_layers.py",
        "-factor * of_bias",
        "0 * of_bias",
        TRAINING,
    ),
    Mutant(
        "the same where that gradient has one",
        "flax/faster/_layers.py",
        "return found, (x, found[0])",
        "return found, (x, jax.lax.stop_gradient(found[0]))",
        "backends/test_native_flax.py gradients_and_those",
    ),
    Mutant(
        "prediction runs in evaluation mode",
        "torch/predict.py",
        "in_mode(model, training=False)",
        "in_mode(model, training=True)",
        FORWARD,
    ),
    Mutant(
        "float64 is float64",
        "flax/weights.py",
        'if dtype != "float64":',
        'if dtype != "float128":',
        "backends/test_parity.py models_dtype",
    ),
    Mutant(
        "wide float32 nets train when hybridized",
        "gluon/layers.py",
        ".slice_axis(axis=0, begin=0, end=None)",
        "",
        "backends/test_native_gluon.py papers_widths",
    ),
    Mutant(
        "channels are not restarted at each block",
        "spec.py",
        "            width = kept\n",
        "            width = self.num_init_features\n",
        "paper/test_manifest.py ",
    ),
    Mutant(
        "a transition keeps the floor of the decimal product",
        "_checks.py",
        "math.floor(Fraction(repr(factor)) * count)",
        "math.floor(factor * count)",
        "paper/test_spec.py decimal",
    ),
    Mutant(
        "plain CIFAR nets have a stem of 16 channels",
        "variants.py",
        "2 * growth_rate if bottleneck else 16",
        "2 * growth_rate",
        "paper/test_manifest.py ",
    ),
    Mutant(
        "the four model.py are one text",
        "keras/model.py",
        "x = concat(x, getattr(self, layer.name)(x))",
        "x = concat(getattr(self, layer.name)(x), x)",
        "project/test_rules.py ",
    ),
    Mutant(
        "initial weights never change",
        "weights.py",
        "math.sqrt(2 / fan)",
        "math.sqrt(1.9999 / fan)",
        "paper/test_weights.py ",
    ),
    Mutant(
        "non-contiguous arrays are saved correctly",
        "formats/_safetensors.py",
        "np.ascontiguousarray(array) for",
        "array for",
        "paper/test_weights.py ",
    ),
    Mutant(
        "Nesterov's momentum is used where the recipe asks for it",
        "torch/train.py",
        "nesterov=recipe.nesterov",
        "nesterov=False",
        FIT,
    ),
    Mutant(
        "the learning rate follows the recipe's milestones",
        "gluon/train.py",
        "                trainer.set_learning_rate(rate)\n",
        "",
        FIT,
    ),
    Mutant(
        "the learning rate is outside the velocity",
        "keras/train.py",
        "velocity + gradient if",
        "velocity + gradient * keras.ops.cast(learning_rate, variable.dtype) if",
        FIT,
    ),
    Mutant(
        "batches come in the order that Run gives them",
        "keras/train.py",
        "shuffle=False",
        "shuffle=True",
        FIT,
    ),
    Mutant(
        "weight decay comes before the momentum",
        "flax/train.py",
        "        optax.add_decayed_weights(recipe.weight_decay),\n"
        "        optax.trace(recipe.momentum, recipe.nesterov),\n",
        "        optax.trace(recipe.momentum, recipe.nesterov),\n"
        "        optax.add_decayed_weights(recipe.weight_decay),\n",
        FIT,
    ),
    Mutant(
        "training gives no buffer of the caller's to the next step",
        "flax/train.py",
        "jax.tree.map(jnp.copy, (parameters, rest, optimizer))",
        "(parameters, rest, optimizer)",
        "backends/test_native_flax.py outlive",
    ),
    Mutant(
        "a run goes on with its velocity",
        "torch/train.py",
        "velocity = torch.tensor(array, device=device)",
        "velocity = torch.zeros(array.shape, device=device)",
        "backends/test_fit.py bit_for_bit",
    ),
    Mutant(
        "the same in Gluon, whose states begin with it",
        "gluon/train.py",
        "return self.velocity[index]",
        "return mx.nd.zeros_like(weight)",
        FIT,
    ),
    Mutant(
        "a run goes on with its learning rate",
        "keras/train.py",
        "        self.model.optimizer.learning_rate = self.run.rates[self.run.steps]\n",
        "        self.model.optimizer.learning_rate = self.run.rates[batch]\n",
        "backends/test_fit.py bit_for_bit",
    ),
    Mutant(
        "the velocity begins at zero",
        "flax/train.py",
        "trace=velocity)",
        "trace=parameters)",
        FIT,
    ),
    Mutant(
        "frozen features use their running statistics, and leave them as they are",
        "torch/train.py",
        "in_mode(model, training=recipe.train_features)",
        "in_mode(model, training=True)",
        "backends/test_fit.py frozen",
    ),
    Mutant(
        "a label's smoothing is spread over all classes, its own too",
        "training/run.py",
        "smooth / classes",
        "smooth / (classes - 1)",
        "training/test_training.py smoothed",
    ),
    Mutant(
        "what happens to an example depends on the epoch",
        "training/run.py",
        "drawn = recipe.seed, epoch, indices",
        "drawn = recipe.seed, 0, indices",
        "training/test_training.py augmentation",
    ),
    Mutant(
        "no checkpoint between the last step of an epoch and its test",
        "training/run.py",
        "keep=self.steps % self.steps_per_epoch != 0",
        "keep=True",
        "training/test_training.py offered",
    ),
    Mutant(
        "best.safetensors are the best epoch's",
        "training/run_folder.py",
        "if state.epochs[-1] == best_epoch(state.epochs):",
        "if state.epochs:",
        "training/test_runs.py last_and_best",
    ),
    Mutant(
        "a run ends with the mean of its last epochs' weights",
        "tasks/train.py",
        "        backend.import_weights(model, history.mean)",
        "        pass",
        "training/test_runs.py measured_anew",
        "torch",
    ),
    Mutant(
        "each of these weighs the same",
        "training/run.py",
        "(weights[n] - mean[n]) / count",
        "(weights[n] - mean[n]) / 3",
        "backends/test_fit.py bit_for_bit",
        "torch",
    ),
    Mutant(
        "a run ends with statistics that are means over batches",
        "tasks/train.py",
        "recipe.recalibrate, recipe.batch_size)",
        "1, recipe.batch_size)",
        "training/test_runs.py measured_anew",
        "torch",
    ),
    Mutant(
        "bench stops its clock when what was asked for has been computed",
        "comparison/rounds.py",
        "            self._finish()",
        "            pass",
        "comparison/test_bench.py clock_stops",
    ),
    Mutant(
        "one folder is one process's",
        "training/run_folder.py",
        "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "            pass",
        "training/test_runs.py two_processes",
    ),
    Mutant(
        "history.jsonl holds nothing that the checkpoint does not",
        "training/run_folder.py",
        " if _is_before(line, state)]",
        "]",
        "training/test_runs.py agree",
    ),
    Mutant(
        "float64 runs that part are noticed",
        "comparison/lockstep.py",
        'largest["max_relative_deviation"] <= TOLERANCES["float64"]',
        "True",
        "comparison/test_lockstep.py leaves_the_others",
    ),
    Mutant(
        "lockstep measures every trainable tensor",
        "comparison/lockstep.py",
        'if info.role == "trainable"]',
        'if info.kind == "conv.weight"]',
        "comparison/test_lockstep.py trainable_tensors",
    ),
    Mutant(
        "augmentation does not depend on the batch that an example is in",
        "data/augment.py",
        "indices.astype(np.uint64)[:, np.newaxis]",
        "np.arange(len(indices), dtype=np.uint64)[:, np.newaxis]",
        "data/test_sources.py does_not_depend_on_the_batch",
    ),
    Mutant(
        "a folder that exists is never replaced",
        "tasks/convert.py",
        "if destination.is_dir() or (becomes_folder and destination.exists()):",
        "if False:",
        "formats/test_formats.py never_replaced",
    ),
    Mutant(
        "a replaced classifier is verified against the source with its own",
        "tasks/convert.py",
        "value = max(before, deviation(actual, expected))",
        "value = deviation(actual, expected)",
        "formats/test_formats.py verified_on_both_sides",
    ),
    Mutant(
        "what is unusual of a checkpoint is said",
        "tasks/convert.py",
        "[*checkpoint.notes, *_unusual(checkpoint)]",
        "[*checkpoint.notes]",
        "formats/test_formats.py what_is_unusual",
    ),
    Mutant(
        "what nothing was shifted to is black",
        "training/run.py",
        'getattr(self._data, "black", 0.0)',
        "0.0",
        "training/test_training.py is_black",
    ),
    Mutant(
        "--device cpu takes no GPU",
        "tasks/predict.py",
        '    if device == "cpu":\n',
        "    if False:\n",
        "tasks/test_evaluate.py device_that_was_asked",
    ),
    Mutant(
        "each case of bench is first as often",
        "comparison/bench.py",
        "list(heard)[:: 1 if number % 2 else -1]",
        "list(heard)",
        "comparison/test_bench.py take_turns",
    ),
    Mutant(
        "a case of bench that is killed leaves the others as they are",
        "comparison/bench.py",
        "                    del heard[case]",
        "                    heard.clear()",
        "comparison/test_bench.py killed",
    ),
    Mutant(
        "bench on a GPU does not hide it",
        "comparison/bench_child.py",
        '    if settings["device"] == "cpu":',
        "    if settings:",
        "comparison/test_bench.py put_on_the_device",
    ),
    Mutant(
        "what a killed process said before is not why it ended",
        "comparison/child_process.py",
        "if code == -signal.SIGKILL:",
        "if False:",
        "comparison/test_child_process.py the_parent_says_how",
    ),
    Mutant(
        "half a message is none",
        "comparison/child_process.py",
        'if mark and content.endswith("\\n"):',
        "if mark:",
        "comparison/test_child_process.py cut_off",
    ),
    Mutant(
        "a beginner's network is the same function",
        "comparison/rivals/keras.py",
        "layers.ZeroPadding2D(3)",
        "layers.ZeroPadding2D(((2, 3), (2, 3)))",
        "comparison/test_rivals.py same_function",
        "keras",
    ),
    Mutant(
        "a beginner's loop takes the steps of fit",
        "comparison/rivals/torch.py",
        "        optimizer.zero_grad()",
        "        pass",
        "comparison/test_rivals.py steps_of_fit",
        "torch",
    ),
    Mutant(
        "making batches has no share of the matrix products",
        "comparison/bench.py",
        '{"feeding", *PRODUCTS}',
        "{*PRODUCTS}",
        "comparison/test_bench.py measures_each_case",
        "torch",
    ),
    Mutant(
        "a GPU that was asked for is not replaced by the CPU",
        "backends.py",
        'and device == "gpu"',
        "and False",
        "comparison/test_bench.py not_there",
        "torch",
    ),
    Mutant(
        "a run that was killed resumes after its last step",
        "training/run.py",
        "self.steps, self._seconds = resume.steps, resume.seconds",
        "self._seconds = resume.seconds",
        "training/test_runs.py as_if_it_had_not",
        "torch",
    ),
    Mutant(
        "a folder named like a framework does not shadow it",
        "comparison/child_process.py",
        'sys.executable, "-P", "-m"',
        'sys.executable, "-m"',
        "commands/test_cli.py on_real_images",
        "torch",
    ),
    Mutant(
        "bench compares within a round",
        "comparison/bench.py",
        "median(a / b for a, b in pairs)",
        'case["images_per_second"] / other["images_per_second"]',
        "comparison/test_bench.py take_turns",
    ),
    Mutant(
        "Xavier's bound has both fans",
        "weights.py",
        "fans = info.size // info.shape[0] + info.size // info.shape[1]",
        "fans = 2 * info.size // info.shape[0]",
        "paper/test_weights.py xavier",
    ),
    Mutant(
        "an epoch's validation is in evaluation mode",
        "torch/train.py",
        "        with in_mode(model, training=False), torch",
        "        with torch",
        "backends/test_fit.py every_step_and_epoch",
    ),
    Mutant(
        "hyper-parameters are rounded to float32 once",
        "training/run.py",
        "recipe.rounded()",
        "recipe",
        "training/test_training.py rounded_recipe",
    ),
    Mutant(
        "one example left over is skipped",
        "training/run.py",
        "(count % size > 1)",
        "(count % size > 0)",
        "training/test_training.py left_over",
    ),
    Mutant(
        "batch variances keep their digits far from zero",
        "flax/layers.py",
        "use_fast_variance=False",
        "use_fast_variance=True",
        "backends/test_parity.py far_from_zero",
    ),
    Mutant(
        "a batch variance is divided by the number of values (the fused BatchNorm's by one less)",
        "keras/_layers.py",
        "return variance * ((count - 1) / count)",
        "return variance",
        "backends/test_parity.py a_step_in_float32",
    ),
    Mutant(
        "of equal numbers in a pooling window the first has the gradient",
        "flax/_layers.py",
        "a >= b",
        "a > b",
        "backends/test_native_flax.py max_pooling",
    ),
    Mutant(
        "memory-efficient training compiles as one graph",
        "torch/faster/recompute.py",
        """if not is_compiling():  # a compiled graph updates the running statistics once by itself
            recomputing = True""",
        "recomputing = not is_compiling()",
        "backends/test_native_torch.py compiles_whole",
    ),
    Mutant(
        "imported weights are copies",
        "flax/weights.py",
        "jnp.array(values",
        "jnp.asarray(values",
        "backends/test_parity.py imported_weights",
    ),
    Mutant(
        "prediction is in evaluation mode also while the caller records",
        "gluon/predict.py",
        "    with mx.autograd.pause(train_mode=False):  # also inside the caller's record()\n",
        "    if True:\n",
        "backends/test_native_gluon.py caller_records",
    ),
    Mutant(
        "every module gets its own mode back",
        "torch/predict.py",
        "            module.training = mode",
        "            model.train(mode)",
        "backends/test_native_torch.py own_mode",
    ),
    Mutant(
        "a network's dtype is that of the layers inside",
        "keras/_saving.py",
        'with dtype_policy(kwargs.get("dtype") or keras.config.dtype_policy()):',
        "if True:",
        "backends/test_native_keras.py layers_inside",
    ),
    Mutant(
        "features have the names of the shape trace, in its order",
        "flax/predict.py",
        "for stage, _ in stages}",
        "for stage in sorted(maps)}",
        FORWARD,
    ),
    Mutant(
        "gradients are in canonical layout",
        "keras/train.py",
        "name: to_canonical(gradient.numpy(), axes)",
        "name: gradient.numpy()",
        TRAINING,
    ),
    Mutant(
        "the loss is a mean over the batch",
        "gluon/train.py",
        "        loss = cross_entropy(log_softmax(model(to_native(x))), to_native(y)).mean()",
        "        loss = cross_entropy(log_softmax(model(to_native(x))), to_native(y)).sum()",
        TRAINING,
    ),
    Mutant(
        "the loss of a sure answer is not below 0",
        "gluon/train.py",
        "return shifted - shifted.exp().sum(axis=1, keepdims=True).log()",
        "return scores.log_softmax(axis=1)",
        "backends/test_parity.py sure_answer",
    ),
    Mutant(
        "without a classifier the pooled features come after the ReLU",
        "torch/model.py",
        "x = self.global_pool(relu(self.features(x)))  # N, C",
        "x = self.global_pool(self.features(x))",
        "backends/test_parity.py without_a_classifier",
    ),
    Mutant(
        "folding takes the convolution's own bias along",
        "_fold.py",
        "(shift + (bias - mean) * scale)",
        "(shift - mean * scale)",
        "paper/test_fold.py folded_network_is_the_same",
    ),
    Mutant(
        "folding takes epsilon along",
        "_fold.py",
        "np.sqrt(variance + eps)",
        "np.sqrt(variance)",
        "paper/test_fold.py folded_network_is_the_same",
    ),
    Mutant(
        "a folded network is not trained",
        "_inputs.py",
        "return check_spec(spec) != spec.config.resolve()",
        "return check_spec(spec) is None",
        "paper/test_fold.py does_not_train",
    ),
    Mutant(
        "PyTorch predicts many images a few at a time",
        "torch/predict.py",
        "x.split(max(1, KEPT // (largest * x.itemsize)))",
        "[x]",
        "backends/test_native_torch.py a_few_at_a_time",
    ),
    Mutant(
        "MXNet's copies start no threads beside those that calculate",
        "gluon/_startup.py",
        '"MXNET_CPU_PARALLEL_SIZE", str(2**31 - 1)',
        '"MXNET_CPU_PARALLEL_SIZE", "1000"',
        "backends/test_native_gluon.py copies_start_no_threads",
    ),
    Mutant(
        "an optimized model has weights of its own",
        "torch/faster/inference.py",
        "fold(model.spec, export_weights(model))",
        "fold(model.spec, {n: 0 * w for n, w in export_weights(model).items()})",
        "paper/test_fold.py optimized_model",
    ),
    Mutant(
        "a falling slope puts the bound above",
        "torch/faster/inference.py",
        "bound.masked_fill(a[:, None, None] > 0, torch.inf)",
        "torch.full_like(bound, torch.inf)",
        "paper/test_fold.py follows_weights",
    ),
    Mutant(
        "a channel without a slope is a constant",
        "torch/faster/inference.py",
        "torch.where(constant, relu(b), b)",
        "b",
        "paper/test_fold.py follows_weights",
    ),
    Mutant(
        "zeros around a map are not clamped",
        "torch/faster/inference.py",
        "not self.spec.conv1.padding",
        "True",
        "paper/test_fold.py optimized_model_is_the_same",
    ),
    Mutant(
        "an optimized model follows weights that it is given",
        "torch/weights.py",
        "model.load_state_dict(state, strict=False)",
        "[model.state_dict()[key].copy_(value) for key, value in state.items()]",
        "paper/test_fold.py follows_weights",
    ),
    Mutant(
        "the same where PyTorch loads them itself",
        "torch/faster/inference.py",
        "        self.register_load_state_dict_post_hook(prepare)\n",
        "",
        "backends/test_native_torch.py loads_and_copies",
    ),
    Mutant(
        "a block's maps lie where its layers look for them",
        "flax/faster/inference.py",
        "maps.at[..., start:end].set(new)",
        "maps.at[..., : end - start].set(new)",
        "paper/test_fold.py optimized_model_is_the_same",
    ),
    Mutant(
        "what is calculated again moves running statistics once",
        "torch/faster/recompute.py",
        "momentum=0.0 if recomputing else norm.momentum,",
        "momentum=norm.momentum,",
        "backends/test_memory.py step_is_the_same",
    ),
    Mutant(
        "running statistics move in a memory-efficient step",
        "keras/faster/recompute.py",
        "                step.move(values)",
        "                pass",
        "backends/test_memory.py step_is_the_same",
    ),
    Mutant(
        "a gradient goes through a mean and a variance that are known",
        "keras/faster/recompute.py",
        "is_training=True",
        "is_training=False",
        "backends/test_memory.py float32_step",
    ),
    Mutant(
        "a block's backward pass has the mask of its dropout",
        "keras/faster/recompute.py",
        "                    of_new *= mask",
        "                    pass",
        "backends/test_memory.py step_is_the_same",
    ),
    Mutant(
        "TensorFlow calculates again instead of keeping",
        "keras/faster/recompute.py",
        "tf.control_dependencies([gradient])",
        "tf.control_dependencies([])",
        "backends/test_memory.py less_memory",
    ),
    Mutant(
        "what Keras' memory-efficient layer would pass by is refused",
        "keras/faster/recompute.py",
        "if not usual or norm.synchronized or conv.lora_enabled:",
        "if not usual:",
        "backends/test_native_keras.py pass_by",
    ),
    Mutant(
        "running statistics move in Flax' memory-efficient step",
        "flax/faster/recompute.py",
        "                move(norm, mean, variance)",
        "                pass",
        "backends/test_memory.py step_is_the_same",
    ),
    Mutant(
        "a memory-efficient step leaves nothing behind",
        "gluon/faster/recompute.py",
        "self.maps = self.masks = self.kept = None",
        "pass",
        "backends/test_native_gluon.py nothing_behind",
    ),
    Mutant(
        "a network that was destroyed is no result",
        "training/run.py",
        "        check_finite(self.steps, weights, velocity)",
        "        pass",
        "backends/test_fit.py destroyed",
        "gluon",
    ),
    Mutant(
        "a BatchNorm that would be passed by is refused",
        "torch/faster/recompute.py",
        "type(norm) is not nn.BatchNorm2d ",
        "False ",
        "backends/test_native_torch.py pass_by",
    ),
    Mutant(
        "each BatchNorm of a memory-efficient layer has a mode of its own",
        "torch/faster/recompute.py",
        "all(norm.training for norm, _ in steps)",
        "steps[0][0].training",
        "backends/test_native_torch.py frozen_alone",
    ),
    Mutant(
        "a layer that is calculated again has the same dropout",
        "gluon/faster/recompute.py",
        "own = own * mask",
        "pass",
        "backends/test_memory.py step_is_the_same",
    ),
    Mutant(
        "XLA calculates again instead of keeping",
        "flax/faster/recompute.py",
        "jnp.minimum(jnp.abs(gradient).max(), 0)",
        "jnp.zeros(())",
        "backends/test_memory.py less_memory",
    ),
    Mutant(
        "pixels are finite",
        "_inputs.py",
        "    if not np.isfinite(cast).all():",
        "    if False:",
        "paper/test_inputs.py finite",
    ),
    Mutant(
        "a missing framework is named with the command that installs it",
        "_installed.py",
        "if error.name not in packages:",
        "if error.name in packages:",
        "project/test_installs.py ",
    ),
    Mutant(
        "importing the package loads no NumPy",
        "manifest.py",
        "import math\n",
        "import math\n\nimport numpy\n",
        "project/test_rules.py ",
    ),
    Mutant(
        "not-a-number is a deviation",
        "comparison/deviation.py",
        'return value if np.isfinite(value) else float("inf")',
        "return value",
        "commands/test_cli.py not_a_number",
    ),
    Mutant(
        "a missing backend that was asked for is exit code 3",
        "commands/output.py",
        "return 3 if missing & set(requested) or missing == reports.keys() else 0",
        "return 3 if missing == reports.keys() else 0",
        "commands/test_cli.py exit_codes",
    ),
    Mutant(
        "the library names no flag",
        "training/run_folder.py",
        '"wait for it, or pass another output="',
        '"wait for it, or pass another --output"',
        "commands/test_flags.py names_no_flag",
    ),
    Mutant(
        "an error names the flag that was typed",
        "commands/output.py",
        "{_translated(_message(error))}",
        "{_message(error)}",
        "commands/test_cli.py wrong_input",
    ),
    Mutant(
        "a folder that is called like an argument is not one",
        "commands/flags.py",
        'rf"{WORD_STARTS}{typed}(?![\\w=(])"',
        'r"(?!)"',
        "commands/test_flags.py typed_is_no_argument",
    ),
    Mutant(
        "config.json names the backend as older run folders do",
        "tasks/train.py",
        '"backend": values.pop("backend_name")',
        '"backend_name": values.pop("backend_name")',
        "training/test_runs.py survive_their_json",
    ),
    Mutant(
        "a backend that is another function is exit code 1",
        "comparison/compare_child.py",
        '"same": measured <= TOLERANCES[dtype],',
        '"same": True,',
        "commands/test_cli.py another_function",
    ),
    Mutant(
        "names of before 2018 are understood",
        "formats/_networks.py",
        "(?P<dot>\\.?)",
        "(?P<dot>)",
        "formats/test_formats.py old_names",
    ),
    Mutant(
        "a pickle is never run",
        "_pickles.py",
        "        if full not in self._named:\n",
        "        return super().find_class(module, name)\n        if full not in self._named:\n",
        "formats/test_native_torch_formats.py never_runs",
    ),
    Mutant(
        "kernels are transposed from Keras' and NNX' layout",
        "formats/_layouts.py",
        "4: (3, 2, 0, 1)",
        "4: (3, 2, 1, 0)",
        "formats/test_formats.py bit_by_bit",
    ),
    Mutant(
        "the zoo's own reader reads what is written",
        "formats/gluon_zoo.py",
        'INSIDE = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 5}',
        'INSIDE = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 4}',
        "formats/test_native_gluon_formats.py loads",
    ),
    Mutant(
        "a conversion that changes the answers leaves no file",
        "tasks/convert.py",
        "        if value > tolerance:",
        "        if False:",
        "formats/test_formats.py changes_the_answers",
    ),
    Mutant(
        "half precision is read without loss",
        "formats/_safetensors.py",
        "<< 16)",
        "<< 15)",
        "paper/test_weights.py narrow",
    ),
    Mutant(
        "the reference's variance is that of the batch",
        "reference.py",
        "(n / (n - 1) if self.unbiased else 1)",
        "(n / (n - 1))",
        "paper/test_reference.py ",
    ),
    Mutant(
        "images are not resized with aligned corners",
        "data/resize.py",
        "+ 0.5",
        "+ 0.0",
        "data/test_data.py ",
    ),
    Mutant(
        "gradients equal central differences",
        "torch/layers.py",
        "torch.cat(maps, dim=1)",
        "torch.cat((maps[0].detach(), *maps[1:]), dim=1)",
        "backends/test_parity.py central_differences",
    ),
    Mutant(
        "gradients agree by name between backends, to 1e-11: a loss in float32 shows",
        "keras/train.py",
        "from_logits=True, dtype=dtype_of(model)\n    )\n    with tf.GradientTape",
        "from_logits=True\n    )\n    with tf.GradientTape",
        "backends/test_together.py gradients_agree",
        needs=",".join(densenet_multi.backend_names()),
    ),
    Mutant(
        "drawn networks, too, are the same function: decays of many digits",
        "torch/layers.py",
        "round(1 - spec.decay, 15)",
        "round(1 - spec.decay, 3)",
        "backends/test_parity_generated.py loss_statistics",
    ),
    Mutant(
        "biased and unbiased running variances convert into each other over several steps",
        "torch/__init__.py",
        'RUNNING_VARIANCE = "unbiased"',
        'RUNNING_VARIANCE = "biased"',
        "backends/test_parity.py over_five_steps",
    ),
    Mutant(
        "a backend imports no other backend",
        "flax/weights.py",
        "from .model import DenseNet\n",
        "from ..keras.weights import to_canonical as transposed\nfrom .model import DenseNet\n",
        "project/test_rules.py no_other_backend",
    ),
    Mutant(
        "a file of a backend imports only those before it",
        "gluon/weights.py",
        "from .model import DenseNet\n",
        "from .train import DenseNet\n",
        "project/test_rules.py files_before_it",
    ),
    Mutant(
        "functions of the contract have the same parameters in every backend",
        "keras/predict.py",
        "def optimize(model: DenseNet, *, bfloat16: bool = False)",
        "def optimize(model: DenseNet, bfloat16: bool = False)",
        "project/test_rules.py same_parameters",
    ),
    Mutant(
        "help() answers with the contract's docstrings",
        "backends.py",
        "module[name].__doc__ = inspect.cleandoc(getattr(Backend, name).__doc__)",
        "pass",
        "backends/test_contract.py docstring",
        "torch",
    ),
    Mutant(
        "fit has the parameters of Run",
        "training/run.py",
        '            "__signature__": signature,\n',
        "",
        "backends/test_contract.py docstring",
        "torch",
    ),
    Mutant(
        "the lesson does not know the tricks",
        "torch/weights.py",
        "from .model import DenseNet\n",
        "from .model import DenseNet\nfrom .faster import for_training\n",
        "project/test_rules.py files_before_it",
    ),
    Mutant(
        "only exchange changes a class",
        "gluon/train.py",
        "    for_training(model)",
        "    model.__class__ = DenseNet; for_training(model)",
        "project/test_rules.py only_exchange",
        "none",
    ),
    Mutant(
        "every glossary has the same words in the same order",
        "torch/layers.py",
        "def relu(x: Tensor) -> Tensor:\n    return F.relu(x)\n\n\n"
        "def concat(*maps: Tensor) -> Tensor:\n    return torch.cat(maps, dim=1)\n",
        "def concat(*maps: Tensor) -> Tensor:\n    return torch.cat(maps, dim=1)\n\n\n"
        "def relu(x: Tensor) -> Tensor:\n    return F.relu(x)\n",
        "project/test_rules.py same_words",
    ),
    Mutant(
        "a backend can be deleted",
        "commands/info.py",
        "framework_versions(name) for name in backend_names()}",
        'framework_versions(name) for name in ("flax", "gluon", "keras", "torch")}',
        "project/test_installs.py the_rest_works",
    ),
    Mutant(
        "a failing forward pass names the first stage that differs",
        "tests/support/parity.py",
        "for stage, shape in trace:",
        "for stage, shape in reversed(trace):",
        "backends/test_parity.py first_stage",
    ),
    Mutant(
        "an activation is one of three",
        "checkpoint.py",
        'one_of("activation", self.activation, ACTIVATIONS)',
        "pass",
        "formats/test_usage.py wrong_values",
    ),
    Mutant(
        "a stated range drops an assumed mean",
        "checkpoint.py",
        'dropped = [name for name in ("mean", "std") if name in self.assumed]',
        "dropped: list[str] = []",
        "formats/test_usage.py drops_the_mean",
    ),
    Mutant(
        "nothing without a value is assumed",
        "checkpoint.py",
        "assumed = tuple(name for name in self.assumed if getattr(self, name) is not None)",
        "assumed = tuple(self.assumed)",
        "formats/test_usage.py that_is_gone",
    ),
    Mutant(
        "what is implied for ImageNet is assumed",
        "formats/recognize.py",
        "class_names=names, assumed=MAY_BE_ASSUMED)",
        "class_names=names)",
        "formats/test_usage.py implied_for_imagenets",
    ),
    Mutant(
        "only a thousand classes are ImageNet's",
        "formats/recognize.py",
        "if config.num_classes == IMAGENET_CLASSES else None",
        "if config.num_classes else None",
        "formats/test_usage.py implied_for_imagenets",
    ),
    Mutant(
        "an unusual activation is called lost",
        "formats/_notes.py",
        'lost.append("activation")',
        "pass",
        "formats/test_usage.py called_lost",
    ),
    Mutant(
        "a new classifier has no activation",
        "formats/__init__.py",
        "class_names=None, activation=None",
        "class_names=None",
        "formats/test_usage.py neither_names",
    ),
    Mutant(
        "one output never gets a softmax",
        "tasks/predict.py",
        'return activation or ("sigmoid" if outputs == 1 else "softmax")',
        'return activation or "softmax"',
        "tasks/test_predict.py never_a_softmax",
    ),
    Mutant(
        "one output with a softmax is said to be 1",
        "tasks/predict.py",
        'if outputs == 1 and activation == "softmax":',
        'if outputs == 0 and activation == "softmax":',
        "tasks/test_predict.py is_said_to_be_1",
    ),
    Mutant(
        "labels have probabilities of their own",
        "tasks/predict.py",
        '"sigmoid": sigmoid,',
        '"sigmoid": softmax,',
        "tasks/test_predict.py labels_of_their_own",
    ),
    Mutant(
        "all labels are shown",
        "tasks/predict.py",
        'top = len(names) if activation == "sigmoid" else TOP',
        "top = TOP",
        "tasks/test_predict.py more_labels_than_five",
    ),
    Mutant(
        "an output is not called a probability",
        "tasks/predict.py",
        'key = "output" if activation == "none" else "probability"',
        'key = "probability"',
        "tasks/test_predict.py not_called_so",
    ),
    Mutant(
        "what no file states is said",
        "tasks/predict.py",
        'for what in ("what its outputs mean", "its class names"):',
        'for what in ("its class names",):',
        "tasks/test_predict.py no_file_states",
    ),
    Mutant(
        "a sigmoid does not overflow",
        "tasks/predict.py",
        "power = np.exp(-np.abs(scores))",
        "power = np.exp(np.abs(scores))",
        "tasks/test_predict.py overflow",
    ),
    Mutant(
        "no certainty is printed",
        "commands/predict.py",
        "probability > 0.9999",
        "probability > 1",
        "tasks/test_predict.py certainty",
    ),
    Mutant(
        "a gray image is three equal channels",
        "formats/_channels.py",
        ".sum(axis=1) for group in groups]",
        ".mean(axis=1) for group in groups]",
        "formats/test_channels.py three_equal_channels",
    ),
    Mutant(
        "each channel's std is folded",
        "formats/_channels.py",
        "scaled = kernels / np.reshape(std, (-1, 1, 1))",
        "scaled = kernels / np.mean(std)",
        "formats/test_channels.py three_equal_channels",
    ),
    Mutant(
        "means are folded into the bias",
        "formats/_channels.py",
        "values[: len(shift)] += shift",
        "values[: len(shift)] -= shift",
        "formats/test_channels.py at_the_border_only",
    ),
    Mutant(
        "means are folded into the running mean",
        "formats/_channels.py",
        ".astype(np.float64) - shift}",
        ".astype(np.float64)}",
        "formats/test_channels.py at_the_border_only",
    ),
    Mutant(
        "a color image's gray version has its answer",
        "formats/_channels.py",
        "shares = list(LUMINANCE)",
        "pass",
        "formats/test_channels.py gray_version",
    ),
    Mutant(
        "repeated channels share a kernel",
        "formats/_channels.py",
        "shares = [1 / sources.count(source) for source in sources]",
        "shares = [count / in_channels for _ in sources]",
        "formats/test_channels.py equal_channels",
    ),
    Mutant(
        "mean needs std",
        "tasks/stated.py",
        "if name in given and getattr(usage, other) is None:",
        "if False:",
        "tasks/test_convert.py do_not_fit",
    ),
    Mutant(
        "a mean lies in the range",
        "tasks/stated.py",
        'if "mean" in given and not',
        "if False and not",
        "tasks/test_convert.py do_not_fit",
    ),
    Mutant(
        "a std is at least a gray level",
        "tasks/stated.py",
        'if "std" in given and not',
        "if False and not",
        "tasks/test_convert.py do_not_fit",
    ),
    Mutant(
        "a class has a name",
        "tasks/stated.py",
        'if "" in lines:',
        "if False:",
        "tasks/test_convert.py names_that_do_not_fit",
    ),
    Mutant(
        "names are in the order of their indices",
        "tasks/stated.py",
        "return sorted(entries, key=entries.__getitem__)",
        "return list(entries)",
        "tasks/test_convert.py files_that_people_have",
    ),
    Mutant(
        "names are those of the new classifier",
        "tasks/convert.py",
        "with_outputs(checkpoint, class_names, activation)",
        "with_outputs(original, class_names, activation)",
        "tasks/test_convert.py new_classifier_and",
    ),
    Mutant(
        "the source is asked with its own channels",
        "tasks/convert.py",
        "own_images = verification_images(original)",
        "own_images = images",
        "tasks/test_convert.py verified_on_both_sides",
    ),
    Mutant(
        "a prefix chooses among networks",
        "tasks/convert.py",
        "source_format, variant=variant, prefix=prefix)",
        "source_format, variant=variant)",
        "tasks/test_convert.py by_its_prefix",
    ),
    Mutant(
        "what is stated is no longer assumed",
        "checkpoint.py",
        "assumed = tuple(name for name in self.assumed if name not in given)",
        "assumed = self.assumed",
        "formats/test_usage.py no_longer_assumed",
    ),
    Mutant(
        "a requested backend predicts",
        "tasks/predict.py",
        "backend_to_use(backend_name, path, checkpoint, say)",
        "backend_to_use(None, path, checkpoint, say)",
        "tasks/test_predict.py backend_that_trained",
    ),
    Mutant(
        "classes are matched by name",
        "tasks/evaluate.py",
        "return lambda logits: logits[:, order]",
        "return lambda logits: logits",
        "tasks/test_evaluate.py matched_with",
    ),
    Mutant(
        "the seed splits a folder",
        "data/folder.py",
        "epoch_order(len(members), seed, label)",
        "epoch_order(len(members), 0, label)",
        "data/test_sources.py split_follows",
    ),
    Mutant(
        "all images of a folder that is held out are used",
        "data/held_out.py",
        "2 * known < recorded",
        "2 * known > 99 * recorded",
        "data/test_held_out.py another_folder_than_that_of_training",
    ),
    Mutant(
        "of the folder of training the part set apart is used",
        "data/held_out.py",
        '        return "test", "the fifth of each class that was set apart when',
        '        return "all", "the fifth of each class that was set apart when',
        "data/test_held_out.py of_the_folder_of_training_only",
    ),
    Mutant(
        "images of the training in another folder are named",
        "data/held_out.py",
        "if path in known]",
        "if False]",
        "data/test_held_out.py images_of_the_training_in",
    ),
    Mutant(
        "images are recognized by their content",
        "data/folder.py",
        'return f"{file.tell()}:{digits}"',
        'return f"{file.tell()}:{path.name}"',
        "data/test_held_out.py where_it_was_moved",
    ),
    Mutant(
        "val is what a run is tested with",
        "data/folder.py",
        'return "val" if "val" in self.parts else "test"',
        'return "test" if "test" in self.parts else "val"',
        "data/test_held_out.py training_uses_the_part",
    ),
    Mutant(
        "test is what a network is tested with",
        "data/held_out.py",
        '"test": ["test", "val"]',
        '"test": ["val", "test"]',
        "data/test_held_out.py tested_with_the_part",
    ),
    Mutant(
        "classes of parts have the labels of the training images",
        "data/folder.py",
        "label_of = {name: label for label, name in enumerate(self.classes)}",
        "label_of = {p.name: i for i, p in enumerate(_folders(folder))}",
        "data/test_held_out.py lack_a_class",
    ),
    Mutant(
        "folders one level deeper are found",
        "data/folder.py",
        "if too_deep := [folder for folder in folders if _holds_folders(folder)]:",
        "if too_deep := []:",
        "data/test_held_out.py one_level_deeper",
    ),
    Mutant(
        "all wrong files of a folder are listed",
        "data/folder.py",
        "if (error := _wrong(path))]",
        "if (error := _wrong(path))][:1]",
        "data/test_held_out.py listed_at_once",
    ),
    Mutant(
        "a broken link to a class is not overlooked",
        "data/folder.py",
        "wrong = _broken_links(folder)",
        "wrong: list[ImageFileError] = []",
        "data/test_held_out.py broken_link_to_the_folder",
    ),
    Mutant(
        "an existing folder needs no prefix",
        "data/sources.py",
        "if name and found.is_dir():",
        "if False:",
        "data/test_held_out.py needs_no_prefix",
    ),
    Mutant(
        "white may be 0 in a TIFF",
        "data/images.py",
        "    if inverted:\n",
        "    if False:\n",
        "data/test_images.py negative",
    ),
    Mutant(
        "32 bits are refused",
        "data/images.py",
        'image.mode in ("I", "F") or set(kinds) != {1} or max(bits) > 16 or ',
        "",
        "data/test_images.py white_is_unknown",
    ),
    Mutant(
        "12 bits are refused",
        "data/images.py",
        " or 12 in bits",
        "",
        "data/test_images.py twelve_bits",
    ),
    Mutant(
        "the content tells an image's kind",
        "data/images.py",
        'b"RIFF....WEBP": (',
        'b"RIFX....WEBP": (',
        "data/test_images.py every_kind",
    ),
    Mutant(
        "large images are refused in every kind",
        "data/images.py",
        "                _check_size(path, image, limit)\n",
        "",
        "data/test_images.py many_pixels_is_refused_before",
    ),
    Mutant(
        "a pickle of CIFAR-10 is never run",
        "data/cifar10.py",
        "found = Reader(file).load()",
        "found = __import__('pickle').load(file)",
        "data/test_cifar10.py names_a_function",
    ),
    Mutant(
        "labels of CIFAR-10's pickles are checked",
        "data/cifar10.py",
        "if not 0 <= label < len(CLASSES)]",
        "if not label < len(CLASSES)]",
        "data/test_cifar10.py anything_else",
    ),
    Mutant(
        "nothing follows a pickle of CIFAR-10",
        "data/cifar10.py",
        "    if file.read(1):",
        "    if False:",
        "data/test_cifar10.py damaged_pickle",
    ),
    Mutant(
        "an archive cannot expand into a large one",
        "data/cifar10.py",
        "        if self.left < 0:",
        "        if False:",
        "data/test_cifar10.py grow_in_memory",
    ),
    Mutant(
        "an archive's checksum is read",
        "data/cifar10.py",
        "            while stream.read(2**20):",
        "            while False:",
        "data/test_cifar10.py no_archive",
    ),
    Mutant(
        "links in an archive are not followed",
        "data/cifar10.py",
        "if member.isreg() else None",
        "if member.isreg() or member.issym() else None",
        "data/test_cifar10.py links_in",
    ),
    Mutant(
        "one output is the score of its class",
        "tasks/evaluate.py",
        "made[:, index] = logits[:, 0]",
        "made[:, 1] = logits[:, 0]",
        "tasks/test_evaluate.py at_one_half",
    ),
    Mutant(
        "several sigmoids have no accuracy",
        "tasks/evaluate.py",
        "    check_exclusive(path, checkpoint)\n",
        "",
        "tasks/test_evaluate.py exclude_each_other",
    ),
    Mutant(
        "the backend that trained is used",
        "tasks/_trained_by.py",
        "if trained in (None, first):",
        "if trained is None or first:",
        "tasks/test_trained_by.py told_where",
    ),
    Mutant(
        "no number of the table is cut off",
        "commands/evaluate.py",
        '"no_wrap": True}',
        '"no_wrap": True, "max_width": 6}',
        "tasks/test_evaluate.py cut_off",
    ),
    Mutant(
        "a run records what it was trained on",
        "tasks/train.py",
        "trained_on=data.fingerprints(),",
        "trained_on=None,",
        "tasks/test_trained_by.py what_train_records",
        "torch",
    ),
    Mutant(
        "a trained network has a softmax",
        "tasks/train.py",
        '        activation="softmax",\n',
        "",
        "tasks/test_trained_by.py what_train_records",
        "torch",
    ),
    Mutant(
        "the folder of a run is remembered with its kind",
        "commands/train.py",
        'typed["data"] = spelled_out(typed["data"])',
        "pass",
        "commands/test_data_option.py ",
    ),
    Mutant(
        "the chapter's blocks are counted by their numbers, not as text",
        "formats/_chapter.py",
        "key=_number)\n    found: dict",
        "key=str)\n    found: dict",
        "formats/test_chapter.py in_another_order",
    ),
    Mutant(
        "the chapter's second layer of a unit is its convolution",
        "formats/_chapter.py",
        'PARTS = {"0": "norm1", "2": "conv1"}',
        'PARTS = {"0": "norm1", "1": "conv1"}',
        "formats/test_chapter.py every_edition",
    ),
    Mutant(
        "the BatchNorm after the chapter's stem is the stem's",
        "formats/_chapter.py",
        "str(int(place) + 1)",
        "str(int(place) + 2)",
        "formats/test_chapter.py every_edition",
    ),
    Mutant(
        "MXNet's gamma is a weight",
        "formats/_chapter.py",
        '"gamma": "weight"',
        '"gamma": "bias"',
        "formats/test_chapter.py every_edition",
    ),
    Mutant(
        "a head that is not of the last width is left out",
        "formats/_chapter.py",
        'len(linear) == 1 and linear[0].shapes["weight"][1] == width',
        "linear",
        "formats/test_chapter.py head_of_several",
    ),
    Mutant(
        "several networks of the chapter are listed",
        "formats/_chapter.py",
        "if len(arounds) > 1:",
        "if len(arounds) > 2:",
        "formats/test_chapter.py told_apart",
    ),
    Mutant(
        "transitions that keep no one fraction are refused",
        "formats/_chapter.py",
        "if least < most:",
        "if True:",
        "formats/test_chapter.py restart",
    ),
    Mutant(
        "whose channel count restarts is the newest JAX edition's",
        "formats/_chapter.py",
        "(stem + layers[block] * growth) // 2",
        "(stem + layers[block] * growth) // 3",
        "formats/test_chapter.py restart",
    ),
    Mutant(
        "a layer that the chapter has not is named",
        "formats/_chapter.py",
        "if len(norms) != 1 or others or",
        "if len(norms) != 1 or",
        "formats/test_chapter.py chapter_has_not",
    ),
    Mutant(
        "a 1x1 convolution before a 3x3 one is a bottleneck's",
        "formats/_chapter.py",
        "(not bottleneck or is_pointwise[at + 1])",
        "not bottleneck",
        "formats/test_chapter.py numbered_layers",
    ),
    Mutant(
        "numbered layers of MXNet are in the order of their numbers",
        "formats/gluon_zoo.py",
        'key=lambda layer: int(found[layer]["number"])',
        'key=lambda layer: found[layer]["number"]',
        "formats/test_native_gluon_formats.py this_packages",
    ),
    Mutant(
        "MXNet's own names of this package's models are read",
        "formats/gluon_zoo.py",
        "layer + dot + CANONICAL_LEAF.get(leaf, leaf)",
        "layer + dot + leaf",
        "formats/test_native_gluon_formats.py this_packages",
    ),
    Mutant(
        "a reader's MXNet network is the chapter's",
        "formats/gluon_zoo.py",
        "if chapter := chapter_names(shapes, prefix):",
        "if chapter := None:",
        "formats/test_native_gluon_formats.py readers_network",
    ),
    Mutant(
        "what a numbered file does not show is called assumed",
        "formats/gluon_zoo.py",
        '"pooling and the order of concatenation are assumed"',
        '"pooling and the order of concatenation"',
        "formats/test_native_gluon_formats.py readers_network",
    ),
    Mutant(
        "PyTorch's counters are no weights",
        "weights.py",
        'and not str(name).endswith(f".{COUNTER}")',
        "",
        "paper/test_weights.py counters_are_no",
    ),
    Mutant(
        "Flax' arrays have their shape",
        "formats/_msgpack.py",
        "math.prod(shape) * dtype.itemsize != len(raw)",
        "math.prod(shape) * dtype.itemsize < len(raw)",
        "formats/test_linen.py bytes_of_its_shape",
    ),
    Mutant(
        "a name occurs once in a map",
        "formats/_msgpack.py",
        "if key in found:",
        "if False:",
        "formats/test_linen.py promises_more",
    ),
    Mutant(
        "maps within maps end",
        "formats/_msgpack.py",
        "or depth > DEEPEST:",
        "or depth > 10**6:",
        "formats/test_linen.py promises_more",
    ),
    Mutant(
        "objects are counted",
        "formats/_msgpack.py",
        "self.objects += 1",
        "self.objects += 0",
        "formats/test_linen.py too_many",
    ),
    Mutant(
        "nothing follows the map",
        "formats/_msgpack.py",
        "if reader.at != len(content):",
        "if False:",
        "formats/test_linen.py promises_more",
    ),
    Mutant(
        "lengths are as short as Flax writes them",
        "formats/_msgpack.py",
        "if count < most:",
        "if count < most - 10:",
        "formats/test_native_flax_linen.py what_is_written",
    ),
    Mutant(
        "an optimizer's state is not the network",
        "formats/_flax_files.py",
        "any(key in OPTIMIZERS for key",
        "any(key in () for key",
        "formats/test_linen.py optimizer_and_counters",
    ),
    Mutant(
        "an optimizer's state in NNX is not the network",
        "formats/nnx.py",
        "or is_of_optimizer(layer)",
        "",
        "formats/test_native_flax_formats.py without_its_optimizer",
    ),
    Mutant(
        "a pickle is read by the restricted reader",
        "formats/_flax_files.py",
        "root = Reader(file).load()",
        "root = __import__('pickle').load(file)",
        "formats/test_linen.py nothing_in_it_is_run",
    ),
    Mutant(
        "Linen's decay is 0.99",
        "formats/linen.py",
        "EPSILON, DECAY = 1e-5, 0.99",
        "EPSILON, DECAY = 1e-5, 0.9",
        "formats/test_native_flax_linen.py numbered_layers_answer",
    ),
    Mutant(
        "blocks and transitions of Linen alternate",
        "formats/linen.py",
        "(2 * first + (_class(path) not in blocks), *inside)",
        "(2 * first, *inside)",
        "formats/test_native_flax_linen.py numbered_layers_answer",
    ),
    Mutant(
        "Linen's layers are in the order of their numbers, not as text",
        "formats/linen.py",
        'int(key.rpartition("_")[2]) for key in path',
        'int(key.rpartition("_")[2][:1]) for key in path',
        "formats/test_native_flax_linen.py numbered_layers_answer",
    ),
    Mutant(
        "the last BatchNorm around blocks is called last",
        "formats/linen.py",
        "return (10**6,) if is_last else (-1, first)",
        "return (-1, first)",
        "formats/test_linen.py module_around",
    ),
    Mutant(
        "a stem that may pad SAME is not believed",
        "formats/linen.py",
        "or convs[0][1][2:] != (3, 3)):",
        "):",
        "formats/test_linen.py must_be_said",
    ),
    Mutant(
        "other classes' order is not believed",
        "formats/linen.py",
        "if not is_asserted and (not is_known or",
        "if not is_asserted and (False or",
        "formats/test_linen.py must_be_said",
    ),
    Mutant(
        "layers in one module are in the order of their numbers",
        "formats/linen.py",
        "if not blocks:  # all in one module\n        return (first,)",
        "if not blocks:\n        return (-first,)",
        "formats/test_linen.py only_numbered",
    ),
    Mutant(
        "the chapter's classes in Keras are known",
        "formats/_chapter.py",
        'any("transition_block" in path for path in paths)',
        "True",
        "formats/test_chapter.py classes_in_keras",
    ),
    Mutant(
        "convolutions without a bias get one of zeros",
        "formats/linen.py",
        "found.setdefault(_bias(name), np.zeros(",
        "found.setdefault(_bias(name), np.ones(",
        "formats/test_linen.py completed_with_zeros",
    ),
    Mutant(
        "the chapter's Linen network is refused",
        "formats/linen.py",
        "if any(IN_CHAPTER.fullmatch(name) for name in shapes):",
        "if False:",
        "formats/test_native_flax_linen.py pads_same",
    ),
    Mutant(
        "parameters without statistics are refused",
        "formats/linen.py",
        'if not any(name.endswith(".running_mean") for name in found[around]):',
        "if False:",
        "formats/test_linen.py without_statistics",
    ),
    Mutant(
        "new channels that come first are sorted",
        "formats/_new_first.py",
        "given = range(before * growth, before * growth + first)",
        "given = range(first)",
        "formats/test_new_first.py sorted_channels",
    ),
    Mutant(
        "the reader of a block's map is sorted too",
        "formats/_new_first.py",
        "found[name] = found[name][:, order]",
        "pass",
        "formats/test_new_first.py sorted_channels",
    ),
    Mutant(
        "pytorch-cifar's first layer is the first, whether 0 or 1",
        "formats/_new_first.py",
        'int(match["layer"]) - first + 1',
        'int(match["layer"]) + 1',
        "formats/test_new_first.py names_are_known",
    ),
    Mutant(
        "a layer among the chapter's is not left out",
        "formats/_chapter.py",
        "if is_inside and name",
        "if False and name",
        "formats/test_chapter.py among_the_chapters",
    ),
    Mutant(
        "a layer among pytorch-cifar's is not left out",
        "formats/_new_first.py",
        "return names if all(",
        "return names if True or all(",
        "formats/test_new_first.py other_layers",
    ),
    Mutant(
        "a layer among NNX' is not left out",
        "formats/nnx.py",
        'if "denseblock" in layer and',
        "if False and",
        "formats/test_linen.py of_nnx_is_not",
    ),
    Mutant(
        "another kind of parameter of Linen's is not left out",
        "formats/linen.py",
        "if inside := [",
        "if inside := [] and [",
        "formats/test_linen.py computes_in_the_network",
    ),
    Mutant(
        "another layer of Linen's is not left out",
        "formats/linen.py",
        "if any(paths.get(",
        "if False and any(paths.get(",
        "formats/test_linen.py computes_in_the_network",
    ),
    Mutant(
        "another numbered layer of MXNet's is not left out",
        "formats/gluon_zoo.py",
        "if len(found) == len(names):",
        "if found:",
        "formats/test_native_gluon_formats.py other_activation",
    ),
]


def table() -> str:
    """The promises, as Markdown."""
    rows = ["| promise | break in | from | to | red |", "|---|---|---|---|---|"]
    for m in MUTANTS:
        old, new = (" ".join(text.split()) for text in (m.old, m.new))
        old, new = (f"`{text}`" if text else "nothing" for text in (old, new))
        rows.append(f"| {m.promise} | `{m.file}` | {old} | {new} | `{m.test.strip()}` |")
    return "\n".join(rows) + "\n"


def make_copies(folder: Path) -> tuple[Path, Path]:
    """Fresh copies of the package and the tests; this folder then comes first on Python's path."""
    package, tests = folder / PACKAGE.name, folder / TESTS.name
    for original, copied in ((PACKAGE, package), (TESTS, tests)):
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(original, copied, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TESTS.parent / "pyproject.toml", folder)  # pytest's settings
    return package, tests


def is_green(mutant: Mutant, folder: Path) -> bool:
    """Whether the mutant's test passes on the copies in this folder."""
    file, word = mutant.test.split(" ", 1)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "--no-header"]
    command += ["-p", "no:cacheprovider", "--backends", mutant.backends]
    tests = folder / TESTS.name if mutant.file.startswith("tests/") else TESTS
    command += [str(tests / file)]
    # the copy comes first, and a densenet_multi in the current folder does not count
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    command += ["-k", word] if word else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode not in {0, 1} and done.returncode > 0:  # neither green nor red
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the test stays green on broken copies."""
    source = mutant.source(*make_copies(folder))
    text = source.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times")
    source.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    return is_green(mutant, folder)


def main() -> int:
    """Run the breaks that the command line asks for, each after its test has passed unbroken."""
    words = sys.argv[1:]
    if words == ["--table"]:
        print(table(), end="")
        return 0
    chosen = [m for m in MUTANTS if all(word in m.promise or word in m.file for word in words)]
    survivors = []
    green = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, mutant in enumerate(chosen, 1):
            if (mutant.test, mutant.backends) not in green:
                make_copies(folder)
                if not is_green(mutant, folder):
                    raise SystemExit(f"{mutant.test} ({mutant.backends}): red without any break")
                green.add((mutant.test, mutant.backends))
            alive = survives(mutant, folder)
            verdict = "SURVIVED" if alive else "caught"
            print(f"{number}/{len(chosen)} {verdict}: {mutant.promise} ({mutant.file})", flush=True)
            survivors += [mutant] * alive
    print(f"{len(chosen) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
