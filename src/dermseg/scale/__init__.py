"""The main job on many machines: manifests, object storage, partitions, Ray. Needs the extra ``[ray]``."""
