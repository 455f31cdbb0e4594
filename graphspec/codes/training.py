"""GS06xx: training and data. What only a run can show (files, checkpoints, numbers that blow up) has no spec text.

Long because it is a table: one record a code, nothing between them.
"""

from graphspec.codes import Code


def _spec(train: str, data: str = "corpus()") -> str:
    """A small model that could be trained; `train` and `data` are what the code is about."""
    return f"""\
graphspec: 1
model: small
inputs:
  wave: float[T, 1] @ 16000
require:
  - T % 16 == 0
graph:
  y: wave[t-1] |> conv(16) |> tanh |> linear(1)
losses:
  l2: mean(square(y - wave))
data:
  {data if ":" in data else "wave: " + data}
train:
  optimizer: adamw()
{train}"""


_GOOD = "  lr: 1e-3\n  steps: 1000\n  crop: {T: 4096}\n"


_CLASSES = """\
graphspec: 1
model: small
inputs:
  wave: {type: 'int(256)[T, 1] @ 16000', before: 128}
graph:
  h: wave[t-1] |> embed(8) |> conv(8, k=3)
  dist: h |> categorical(256)
losses:
  nll: nll(dist, wave)
data:
  wave: corpus()
train:
  optimizer: adam()
  lr: 1e-3
  crop: {T: 4096}
"""

CODES: tuple[Code, ...] = (
    Code(
        "GS0601",
        "data for an input that does not exist",
        "`data:` says for each input where its recordings come from; the names are those of `inputs`.",
        failing=_spec(_GOOD, data="audio: corpus()"),
        passing=_spec(_GOOD),
        fix="Use the name of an input.",
    ),
    Code(
        "GS0602",
        "there is no such setting",
        "A key of `train:` or of one of its groups that nothing reads would be a setting without effect.",
        failing=_spec(_GOOD + "  batchsize: 8\n"),
        passing=_spec(_GOOD + "  batch: 8\n"),
        fix="Correct the name; the note lists what there is.",
    ),
    Code(
        "GS0603",
        "a setting out of its range",
        "Learning rates, batches, steps and crops are more than 0; weight decay is 0 or more; train.ema is below 1.",
        failing=_spec(_GOOD.replace("1e-3", "-1e-3")),
        passing=_spec(_GOOD),
        fix="Give a number in the range that the message names.",
    ),
    Code(
        "GS0604",
        "a crop of an axis that does not exist",
        "`crop` gives the length of a training example for each symbolic axis of the inputs, as {T: 8192}.",
        failing=_spec(_GOOD.replace("{T:", "{N:")),
        passing=_spec(_GOOD),
        fix="Use the name of the axis, as it stands in the type of the input.",
    ),
    Code(
        "GS0605",
        "the crop breaks a fact of require",
        "The spec was proven for lengths of which its facts hold; a crop of another length would not even run.",
        failing=_spec(_GOOD.replace("4096", "4100")),
        passing=_spec(_GOOD),
        fix="Take a multiple; the nearest one is printed.",
    ),
    Code(
        "GS0606",
        "there is no such optimizer or source of data",
        '`optimizer` is a call such as adamw(weight_decay=0), an entry of `data` one such as audio_folder("data").',
        failing=_spec(_GOOD, data='audio_files("data")'),
        passing=_spec(_GOOD, data='audio_folder("data")'),
        fix="Call one of those that the note lists.",
    ),
    Code(
        "GS0607",
        "training lacks a setting",
        "To train, a spec says its optimizer, the learning rate, and how long a crop is. There are no defaults for "
        "these: they decide what comes out.",
        failing="",
        passing=_spec(_GOOD),
        fix="Write it under `train:`, or give it on the command line, as train.lr=1e-3.",
    ),
    Code(
        "GS0608",
        "no data",
        "The spec has no `data:`, so there is nothing to train on.",
        failing="",
        passing=_spec(_GOOD),
        fix='Write data: {wave: audio_folder("data")}, or corpus() for a trial without a download.',
    ),
    Code(
        "GS0609",
        "no recording fits this input",
        "Recordings are [T, channels] at a whole number of samples a second; integers are quantised audio of 1 to 16 "
        "bits, so their number of classes is a power of two. Arrays hold any timed input whose other sizes are known.",
        failing="",
        passing=_spec(_GOOD),
        fix="Change the input's type, or compute what you need from the audio in `graph`.",
    ),
    Code(
        "GS0611",
        "a schedule does not give a number",
        "An expression for `lr` is evaluated at every update, with `step` the count of updates; it gives a number.",
        failing=_spec(_GOOD.replace("1e-3", "step < 100")),
        passing=_spec(_GOOD.replace("1e-3", "1e-3 if step < 100 else 1e-4")),
        fix="Write an expression that gives a number, as cosine(step, 1e-3, 1e-5, over=1000).",
    ),
    Code(
        "GS0612",
        "a loss or gradient is not finite",
        "One NaN spreads to every weight with the next update. Training stops before that update, and the weights are "
        "those that gave the last finite loss.",
        failing="",
        passing="",
        fix="Lower the learning rate, clip gradients with train.clip, or look for a log or a root of 0 in the spec.",
    ),
    Code(
        "GS0613",
        "too few files",
        "The last files of a folder are held out for the test and those before them for validation, whole: pieces of "
        "one recording on both sides would make the score a memory test. At least one is left to train on.",
        failing="",
        passing=_spec(_GOOD, data="corpus(pieces=12, held_out=1, validation=1)"),
        fix="Add files, or lower held_out or validation.",
    ),
    Code(
        "GS0614",
        "files are shorter than the crop",
        "Crops are full. A file that holds none is skipped and counted, which is a warning; when none is left, it is "
        "an error.",
        failing="",
        passing=_spec(_GOOD),
        fix="Lower train.crop.",
    ),
    Code(
        "GS0615",
        "a data path leaves the spec's folder",
        "A spec reads below its own folder only, so that one from elsewhere cannot read your files. A path that you "
        "give on the command line may lie anywhere.",
        failing="",
        passing=_spec(_GOOD, data='audio_folder("data")'),
        fix="Move the data, or give data=FOLDER on the command line.",
    ),
    Code(
        "GS0616",
        "no folder, or no audio in it",
        "The folder of the recordings does not exist, or holds no file with the ending of an audio format.",
        failing="",
        passing=_spec(_GOOD, data='audio_folder("data")'),
        fix="Correct the path, or give data=FOLDER on the command line.",
    ),
    Code(
        "GS0617",
        "the recordings do not fit in memory",
        "All recordings are decoded once and kept, and together they would take more than the limit.",
        failing="",
        passing="",
        fix="Train on a part of them.",
    ),
    Code(
        "GS0618",
        "files cannot be used",
        "Some files of the folder cannot be decoded, are empty or hold numbers that are not finite. They are skipped "
        "and counted; the message names the first. A prompt that cannot be used is an error.",
        failing="",
        passing="",
        fix="Look at the files, or move them away.",
    ),
    Code(
        "GS0619",
        "a group selects no weight",
        "`train.groups` selects weights by the tags that their ops declare (ssm, norm, bias) or by the name of a "
        "value. One that selects nothing is a typo, and its learning rate would be nobody's.",
        failing="",
        passing=_spec(_GOOD + "  groups:\n    bias: {weight_decay: 0}\n"),
        fix="Use one of the tags or values that the note lists.",
    ),
    Code(
        number="GS0620",
        title="a checkpoint is damaged",
        why="Its files are not, byte for byte, what its manifest.json says was written: a file is missing, cut short, "
        "changed, or the manifest itself cannot be read. Weights with a flipped bit load and train without a word, so "
        "a checkpoint is only used when every SHA-256 agrees. When a run resumes, the newest checkpoint before it that "
        "verifies is used instead, and this is a warning.",
        failing="",
        passing="",
        fix="Resume from the checkpoint before it. If more than one is damaged, check the disk; a copy made while the "
        "run was writing is not one to trust.",
    ),
    Code(
        number="GS0621",
        title="a checkpoint is of another model",
        why="A tensor of the model is not in the checkpoint, or is there with another shape or dtype, or the "
        "checkpoint holds one the model has not. Or all of them fit, but the spec it was trained with computes "
        "something else (its hash is in the manifest). Nothing is copied until all of this agrees.",
        failing="",
        passing="",
        fix="Resume with the spec the run was started with (it is kept in the run's folder), or start a new run.",
    ),
    Code(
        number="GS0622",
        title="a file of the run cannot be written",
        why="The disk is full, a quota is reached, the folder may not be written, or the device failed. Files are "
        "written beside their final place and renamed when they are whole, so what was written before is intact.",
        failing="",
        passing="",
        fix="Free some space, allow writing, or name another folder, then resume: the newest checkpoint is used.",
    ),
    Code(
        "GS0623",
        "the run exists already",
        "A run is never overwritten: its folder holds weights that took hours.",
        failing="",
        passing="",
        fix="Go on with it by --resume, or choose another name with --run.",
    ),
    Code(
        "GS0624",
        "there is no such run",
        "A bare name is a folder under runs/, a name with `/` a path. The folder has no config.json, or it cannot be "
        "read.",
        failing="",
        passing="",
        fix="Correct the name; the note lists the runs that there are.",
    ),
    Code(
        "GS0625",
        "no checkpoint can be loaded",
        "The run has no checkpoint, or none whose files are what its manifest says.",
        failing="",
        passing="",
        fix="Start again under another name: --run NAME.",
    ),
    Code(
        "GS0626",
        "a run is resumed with another spec or other overrides",
        "Resuming goes on with exactly the model and settings the run was started with; others would make its metrics "
        "those of two experiments.",
        failing="",
        passing="",
        fix="Give the overrides that the message prints, or start a new run.",
    ),
    Code(
        "GS0627",
        "nothing says how to sample",
        "The spec has no `sample:`. Which input is replaced by draws from which distribution is part of the model.",
        failing="",
        passing="",
        fix="Write sample: {feed: {wave: draw(dist)}} in block style.",
    ),
    Code(
        "GS0628",
        "there is no such knob, or its value is no number",
        "Knobs are the inputs with a `default`, such as temperature: numbers from 0 that change without a new "
        "compilation.",
        failing="",
        passing="",
        fix="Use one of those that the message lists, with a number from 0.",
    ),
    Code(
        "GS0629",
        "what is given to an entry does not fit it",
        "An entry hears what its `from:` names and what is drawn: each once, of its shape, of levels that its type "
        "has, finite, and long enough. A prompt fills the history before anything is drawn; a sampler that has begun "
        "takes none. An entry that draws nothing computes what it is not given of a recording (`--input`).",
        failing="",
        passing="",
        fix="Give what the message names, in the shape that it names; a prompt before the first tick.",
    ),
    Code(
        "GS0630",
        "the output is not a .wav file",
        "`graphspec sample` writes WAV, 16 bits, at the rate of the input; the ending of the file says so.",
        failing="",
        passing="",
        fix="End the name in .wav.",
    ),
    Code(
        "GS0631",
        "the device cannot be used",
        "`--device` names a device of torch, such as cpu, cuda or cuda:1. This torch does not know it, or the machine "
        "does not have it.",
        failing="",
        passing="",
        fix="Leave the option away to run on the CPU.",
    ),
    Code(
        "GS0632",
        "a run is resumed in another environment",
        "Sums of floats depend on versions and on the number of threads. The run goes on, but its figures need not be, "
        "bit for bit, those of the uninterrupted run.",
        failing="",
        passing="",
        fix="Use the versions and the number of threads that the message names, if that matters.",
    ),
    Code(
        "GS0633",
        "another process of the run has ended",
        "Processes that torchrun started take every update together. When one of them ends, or takes no part for 25 "
        "seconds, the others end, too: they would wait for ever. What it died of is in its own messages.",
        failing="",
        passing="",
        fix="Look for the first error among the processes, mend it, and go on with --resume.",
    ),
    Code(
        "GS0634",
        "memory ran out",
        "The activations of one forward and backward pass did not fit. They grow with train.batch and train.crop, not "
        "with train.accumulate: rows that are accumulated are added to the same update one micro-batch after another. "
        "The checkpoints are whole.",
        failing="",
        passing=_spec(_GOOD + "  batch: 2\n  accumulate: 4\n"),
        fix="Lower train.batch and raise train.accumulate, shorten train.crop, or compute in train.precision: bf16.",
    ),
    Code(
        "GS0635",
        "an update is skipped",
        "A loss or gradient was not finite, and the spec says train.nonfinite: skip, so the weights stay as they were "
        "and the next rows are taken. It is a warning; more than 10 in a row stop the run.",
        failing="",
        passing=_spec(_GOOD + "  nonfinite: skip\n"),
        fix="Nothing need be done if it stays rare; else lower train.lr or set train.clip.",
    ),
    Code(
        "GS0636",
        "TensorBoard is not installed",
        "`train --tensorboard` writes its scalars through the package tensorboard, which is an extra: metrics.csv "
        "needs nothing.",
        failing="",
        passing="",
        fix="Run pip install graphspec[tensorboard], or leave --tensorboard away.",
    ),
    Code(
        "GS0637",
        "there is nothing to train",
        "Training changes weights to make losses smaller. A spec without `losses`, or whose ops have no weights that "
        "are not frozen, can be compiled and run, but not trained.",
        failing="",
        passing=_spec(_GOOD),
        fix="Add losses, or an op with weights.",
    ),
    Code(
        "GS0650",
        "recordings are changed to fit the input",
        "Files of several channels for a mono input, mono files for an input of several channels, and files at another "
        "rate are used all the same, and this says how many, once. `stereo: left` or `right` takes one channel instead "
        "of the mean; `stereo: refuse` and `mono: refuse` skip such files.",
        failing="",
        passing=_spec(_GOOD, data='audio_folder("data", stereo=left, mono=refuse)'),
        fix="Nothing need be done; write stereo= or mono= if you want another choice.",
    ),
    Code(
        "GS0651",
        "too many files cannot be used",
        "A few broken files are skipped, with a warning. More than the share `max_bad` (0.5 where it is not written) "
        "says that something else is wrong: the folder, the policy for channels, or a copy that was cut off.",
        failing="",
        passing=_spec(_GOOD, data='audio_folder("data", max_bad=0.1)'),
        fix="Look at the files that the message names, or raise max_bad.",
    ),
    Code(
        "GS0652",
        "a .npy file cannot be read",
        "It is cut short, is no .npy file, is an archive of several arrays, or holds Python objects, which are pickled "
        "and could run code: those are never loaded.",
        failing="",
        passing=_spec(_GOOD, data='array_folder("data")'),
        fix="Save each piece by numpy.save(path, array), an array of numbers.",
    ),
    Code(
        "GS0653",
        "an array does not fit the input",
        "An array is [frames, channels] of the input's kind: integers below its number of classes, or finite floats. "
        "A class that a table has no row for would end a run on a GPU far away from its cause.",
        failing="",
        passing=_spec(_GOOD, data='array_folder("data")'),
        fix="Save the file again as the message says, or correct the input's type.",
    ),
    Code(
        "GS0654",
        "files of several inputs do not match",
        "With data for several inputs, a piece is the files of one name (without the ending) of all of them, and they "
        "last equally long at their rates. Others are skipped, with a warning; too many of them are an error.",
        failing="",
        passing=_spec(_GOOD),
        fix="Name the files alike, and check the rates of the inputs: they decide how long an array lasts.",
    ),
    Code(
        "GS0655",
        "sources of several inputs hold out different files",
        "The parts for test and validation are the same pieces for every input, so held_out and validation are equal "
        "in all sources of `data:`.",
        failing="",
        passing=_spec(_GOOD),
        fix="Write the same held_out and validation in each.",
    ),
    Code(
        "GS0656",
        "a crop is no whole number of ticks of an input",
        "Where `train.crop` leaves an axis open, its length follows from the input's rate and from another's crop.",
        failing="",
        passing=_spec(_GOOD),
        fix="Take a crop that is a multiple of the number in the message.",
    ),
    Code(
        "GS0670",
        "weights that no loss reaches",
        "They are used in a metric, an output or an entry, but training never changes them.",
        failing=_CLASSES + "outputs: ['h |> linear(1)']\n",
        passing=_CLASSES + "outputs: [dist]\n",
        fix="Bring the value into a loss, or say freeze: true.",
    ),
    Code(
        "GS0671",
        "a head and its loss do not belong together",
        "`sample` draws from a distribution that is trained by its negative log-likelihood of the very value that is "
        "fed. Without that loss the samples are noise.",
        failing=_CLASSES.replace("nll(dist, wave)", "nll(dist, shift(wave, 1))")
        + "sample:\n  feed:\n    wave: draw(dist)\n",
        passing=_CLASSES + "sample:\n  feed:\n    wave: draw(dist)\n",
        fix="Score the distribution by nll on what is fed.",
    ),
    Code(
        "GS0672",
        "the model hears more than a crop holds",
        "In training everything before a crop reads as silence, so what lies farther back than the crop is long is "
        "never learned, and sampling then meets it for the first time.",
        failing=_CLASSES.replace("k=3", "k=3, dilation=4000"),
        passing=_CLASSES,
        fix="Take longer crops, or make the model hear less.",
    ),
    Code(
        "GS0638",
        "this cannot be streamed",
        "`graphspec stream` pushes one recording through one output along time, block by block.",
        failing="",
        passing=_spec(_GOOD),
        fix="Name one of the spec's outputs with --value.",
    ),
)
