"""The published settings, derived from the rules of the papers' scripts instead of copied a hundred times.

MocoSFL tables 2 and 3: 100,000 server steps of about 100 images each, one synchronisation per 50 steps (125/11
for 20 clients). MonAcoSFL grid: the same sizes with the loss in both views, cut layers 1 to 9.
"""

from __future__ import annotations

from typing import Any

# clients: (batch size, sampling ratio, synchronisations per epoch, epochs = 200 passes / ratio)
SIZES: dict[int, tuple[int, float, int, int]] = {
    5: (20, 1.0, 10, 200),
    20: (20, 0.25, 10, 800),
    100: (1, 1.0, 10, 200),
    200: (1, 0.5, 5, 400),
    1000: (1, 0.1, 1, 2000),
}
# data set: (source settings, classes per client in the non-IID rows)
DATA: dict[str, tuple[dict[str, Any], int]] = {
    "cifar10": ({"source": "cifar10"}, 2),
    "cifar100": ({"source": "cifar100"}, 20),
    "imagenet12": ({"source": "image-folder", "folder": "imagenet-12", "image_size": 224}, 2),
}


def _values(dataset: str, clients: int, cut: int, *, iid: bool) -> dict[str, Any]:
    batch, ratio, sync_freq, epochs = SIZES[clients]
    source, classes = DATA[dataset]
    return {
        "epochs": epochs,
        "data": source,
        "partition": {"kind": "iid"} if iid else {"kind": "shards", "classes_per_client": classes},
        "model": {"cut_layer": cut},
        "client": {
            "count": clients,
            "batch_size": batch,
            "sampling_ratio": ratio,
            "schedule_step": "published",
        },
        "federation": {"sync_freq": sync_freq},
        # the kNN monitor over the whole training set would cost more than the training between two looks
        "evaluation": {"every": max(1, epochs // 20), "bank_images": 10000},
    }


def _taressfl(name: str, cut: int, share: float) -> dict[str, Any]:
    """Both stages of MocoSFL table 4: 100 frozen clients with CIFAR-10, of which the expert has a share."""
    values = _values("cifar10", 100, cut, iid=True)
    values["client"] |= {"frozen": True, "pretrained": f"experts/{name}"}
    values["model"] |= {"bottleneck": "C4S2"}
    return values | {
        "method": "taressfl",
        "server": {"lr": 0.001},
        "defence": {"resistance": 2.0},
        "pretraining": {"auxiliary": "cifar100", "target_share": share},
    }


def published() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every published row: name to (title, values)."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    for dataset in DATA:
        for clients in SIZES:
            table = "table 2" if clients in (5, 20) else "table 3"
            if table == "table 2" and dataset == "imagenet12":
                continue
            for cut in (1, 2):
                for iid in (False, True) if table == "table 3" else (False,):
                    name = f"{dataset}-{clients}clients-cut{cut}{'-iid' if iid else ''}"
                    mix = "IID" if iid else "non-IID"
                    title = f"MocoSFL {table}: MocoSFL-{2 * cut - 1}, {dataset}, {clients} clients, {mix}"
                    rows[name] = (title, _values(dataset, clients, cut, iid=iid))
    for cut in (1, 2):
        for share in (0, 0.5, 1):
            name = f"taressfl-cifar10-cut{cut}-target{share}"
            title = f"MocoSFL table 4: TAResSFL, MocoSFL-{2 * cut - 1}, {share} % target data in experts/{name}"
            rows[name] = (title, _taressfl(name, cut, share / 100))
    for dataset in ("cifar10", "cifar100"):
        for clients in (5, 20, 200):
            for cut in range(1, 10):
                values = _values(dataset, clients, cut, iid=False)
                values |= {"method": "monacosfl", "seed": 1138, "contrast": {"symmetric": "both_views"}}
                title = (
                    f"MonAcoSFL grid: {dataset}, {clients} clients, layer {2 * cut - 1} (cut {cut}); "
                    f"--set method=mocosfl for its baseline"
                )
                rows[f"monacosfl-{dataset}-{clients}clients-cut{cut}"] = (title, values)
    return rows
