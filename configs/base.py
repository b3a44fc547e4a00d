"""Every setting and its default: Swin-B at 448 with the official CLE-ViT recipe.

The other files of this folder start from here and change a few settings. It names no data, so it
is not run by itself. "code": the official PyTorch code; "paper": Yu, Wang, Gao, IJCAI 2023.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of parameters, order, views and drop path (code: 0)
    config.epochs = 200  # passes over the training images (code: 200)
    config.batch_size = 12  # images of one update over all devices; each gives two views (code: 12)
    config.accumulation = 1  # parts that a batch is cut into to save memory; see docs/training.md
    config.image_size = 448  # pixels per side that the network sees (code: 448)

    config.data = data = ConfigDict()
    # Folder of the images, also in a bucket (gs://BUCKET/FOLDER), or hf://datasets/OWNER/REPO.
    data.root = ""
    # Folder on this host for copies of what lies in buckets or on the web; "" is in ~/.cache.
    data.copy_to = ""
    data.layout = "auto"  # auto, or the name of one; see docs/data.md
    data.tfds = ""  # name of a prepared TFDS data set, e.g. caltech_birds2011; root holds it then
    # Columns of a CSV or Parquet table; "" looks for usual names.
    data.file_column = ""  # that names the image
    data.label_column = ""  # that names the class; of a table, A+B takes two together
    # That says train, val or test, or a number of a fold; NAME:0=train,1=test says what its values
    # mean, and none is no column.
    data.split_column = ""
    data.header = "auto"  # whether the first line of a table names its columns: true | false | auto
    # Of folders in folders, which are the classes: top | leaf (those that hold the images) | 1, 2,
    # ... from the top | auto (asks where it may be more than one of these).
    data.class_level = "auto"
    # Regular expression of the class in a file's name, such as "^(.+)_[0-9]+$"; "" is none.
    data.label_pattern = ""
    data.test_fraction = 0.2  # of the images, cut for testing where the data has no test split
    data.val_fraction = 0.0  # of the training images, cut to choose the best checkpoint by
    # For cross-validation where the data has no test split; 0 is none. Where a column tells the
    # folds, their number.
    data.folds = 0
    data.fold = 0  # which fold is tested on, from 0
    data.split_seed = 0  # of these cuts; apart from seed, so that seeds compare on the same images
    data.resize = 600  # pixels per side of the square that training images are kept at (paper: 600)
    data.cache_bytes = 8 << 30  # decoded images kept, bytes; at most half of the free memory
    data.threads = 0  # threads that decode; 0 is one per CPU that the process may use
    data.on_bad_image = "stop"  # what an image that cannot be read does: stop | skip (leave it out)
    # Share of each split's images that skip may leave out; one image always, but none by 0.
    data.max_bad = 0.01
    data.truncated = False  # whether an image that lacks its last bytes is read as far as it goes
    data.bits = 0  # of 16-bit images, 8 to 16, such as 12; 0 is what the file says, else 16
    # Before training, write procedural leaves to data.root; 0 classes writes none.
    data.leaves = ConfigDict()
    data.leaves.classes = 0
    data.leaves.train_per_class = 20
    data.leaves.test_per_class = 20
    data.leaves.size = 128  # pixels per side
    data.leaves.seed = 0
    data.leaves.difficulty = 0.5  # 0 to 1: likeness of the cultivars, strength of the nuisances

    config.model = model = ConfigDict()
    model.variant = "base"  # tiny | small | base | large (code: base)
    model.embed_dim = 0  # channels of the first stage; 0 is the variant's
    model.depths = ()  # blocks per stage; () is the variant's
    model.num_heads = ()  # heads per stage; () is the variant's
    model.window = 7  # tokens per side of a window (code: 7)
    model.num_classes = 0  # 0 is as many as the data has
    # Where to start: a converted checkpoint, a .pth or .safetensors file, a run, these by gs:// or
    # https://, or a name on the hub, as timm/swin_base_patch4_window7_224.ms_in22k; "" is random.
    model.pretrained = ""
    # Text file: on line i, from 0, which class of model.pretrained class i is (e.g. 22k to 1k).
    model.class_map = ""
    model.drop_path = 0.5  # rate at the last block, rising from 0 (code: 0.5)
    model.dtype = "auto"  # of activations: float32 | bfloat16 | auto (bfloat16 on GPU and TPU)
    model.kernels = "auto"  # xla | pallas (fused kernels for TPUs) | auto (pallas on TPU, else xla)
    # Compile the blocks of a long stage once for all when training: none | blocks | auto (on CPUs).
    model.scan = "auto"
    model.remat = "none"  # none | blocks: recompute each block in the backward pass to save memory

    config.views = views = ConfigDict()
    views.kind = "full"  # full | base (anchor alone) | mask_only | swap_only
    views.crop_scale = (0.67, 1.0)  # area of the crop, share of the image (code)
    views.crop_ratio = (3 / 4, 4 / 3)  # width over height of the crop (code)
    views.brightness = 0.3  # jitter, factor 1 +- this; 0 is off (code: 0.3)
    views.degrees = 15.0  # rotation within +- this; 0 is off (code: 15)
    views.flip = 0.5  # probability of the horizontal flip (code: 0.5)
    views.erase_area = (0.15, 0.45)  # of the erased box, share of the view (code)
    views.erase_ratio = (0.3, 3.3)  # height over width of the erased box (code)
    views.mean = ()  # of each channel, 0 to 1; (): that of model.pretrained, else ImageNet's (code)
    views.std = ()  # deviation of each channel; () as above
    views.parts = 2  # the positive is shuffled in parts x parts pieces (code: 2)

    config.loss = loss = ConfigDict()
    loss.anchor = 1.0  # weight of the anchor's cross-entropy (code: 1)
    loss.positive = 1.0  # weight of the positive's cross-entropy (code: by data set)
    loss.contrast = 1.0  # weight of the contrastive term; 0 leaves it out (code: by data set)
    loss.contrast_kind = "supervised_cosine"  # (code) | instance_triplet (paper)
    loss.label_smoothing = 0.1  # of both cross-entropies (code: 0.1)
    loss.cosine_margin = 0.4  # of supervised_cosine (code: 0.4, whatever its flag says)
    loss.triplet_margin = 1.0  # of instance_triplet (paper: 1)

    config.optim = optim = ConfigDict()
    optim.name = "adamw"  # adamw | sgd (Nesterov)
    optim.lr = 1e-3  # for 512 images; scaled by batch_size / 512 (code: 1e-3)
    optim.head_multiplier = 5.0  # peak rate of the head over that of the rest (code: 5)
    optim.schedule = "linear"  # after the warm-up: linear | cosine | constant (code: linear)
    optim.warmup_epochs = 20.0  # in which the rate rises (code: 20)
    optim.warmup_start = 1e-3  # first rate, share of the peak, the same for the head (code: 1e-3)
    optim.end = 0.01  # last rate, share of the peak (code: 0.01)
    optim.weight_decay = 0.05  # not on 1-d parameters, biases and bias tables (code: 0.05)
    optim.clip_norm = 5.0  # largest global norm of the gradient (code: 5)
    optim.b1 = 0.9  # of adamw (code: 0.9)
    optim.b2 = 0.999  # of adamw (code: 0.999)
    optim.eps = 1e-8  # of adamw (code: 1e-8)
    optim.momentum = 0.9  # of sgd
    optim.ema = 0.0  # decay of the average of parameters that is evaluated; 0 is off

    config.eval = evaluation = ConfigDict()
    evaluation.every_epochs = 1  # epochs between evaluations (code: 1)
    evaluation.batch_size = 24  # images, over all devices
    # Evaluations without a better validation top-1 after which training ends; 0 is off.
    evaluation.patience = 0
    evaluation.resize = 512  # pixels of the shorter side before the centre crop (code: 512)

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every_minutes = 10.0  # between checkpoints; 0 is off; a new best is always saved
    checkpoint.every_steps = 0  # one at every multiple of this, too; 0 is by time alone
    checkpoint.keep = 2  # newest checkpoints that are kept, besides the best
    checkpoint.keep_every = 0  # save every multiple of this step and keep it for good; 0 is off
    checkpoint.timeout_minutes = 10.0  # after which storage, or a process, that hangs ends the run

    config.log = ConfigDict()
    config.log.every_steps = 20  # updates between records in metrics.jsonl and TensorBoard
    config.log.report = True  # write report.html when the run is finished
    config.log.wandb = ""  # project of Weights & Biases that gets the records, too; "" is none
    config.log.mlflow = ""  # experiment of MLflow that gets them; "" is none

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that share a batch; -1 is all that fsdp leaves
    config.mesh.fsdp = 1  # devices that share one copy of the parameters; of one slice of TPUs
    return config.lock()
