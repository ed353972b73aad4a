"""Help of parameters that mean the same in every command; a docstring that names one of them goes first."""

SHARED = {
    "batch_size": "Clips to encode at a time.",
    "checkpoint": "A run's folder, its checkpoint.pt, a folder that save_pretrained wrote, or owner/name on the Hub.",
    "clips": "Clips to search among, the first of the file; null takes all. Time grows with the square.",
    "device": "Device to run on, as torch names it: cpu, cuda, cuda:1.",
    "dtype": "Numbers on disk; bfloat16 and float16 take half the room of float32.",
    "features": (
        "Gallery: a feature file (safetensors), a feature store, or one split of it, STORE:SPLIT; every clip is a "
        "query and an item, in both directions."
    ),
    "index": "Folder of the index.",
    "manifest": (
        "Manifest (JSON Lines) that the features were extracted from, so that hits name their media files; null "
        "takes the files that the feature store names."
    ),
    "metric": "Distance between sequences, a metric of scav_kernels.cdist; null takes the checkpoint's.",
    "metrics": "Distances to search by: pooled_cosine, or metrics of scav_kernels.cdist.",
    "options": "Keyword arguments of that metric; null takes the checkpoint's, or none where the metric is another.",
    "overwrite": "Start anew although the folder holds results.",
    "resume": "Keep what an earlier run with these settings left in the folder, and go on from there.",
    "seed": "Seed of the draw.",
    "shard_megabytes": "Encoded steps in a file of the index, in MiB; a few times as much is held in memory.",
    "skip_bad": "Leave out clips whose features are NaN or infinite, and name them, instead of ending there.",
    "store": "Folder of the feature store.",
}
