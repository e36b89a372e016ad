"""A new version under load: nobody is refused, nobody is answered by half of it, and a bad one changes nothing."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import odd_models
from serving import MODELS, serve

IRIS = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")
CLIENTS = 4


def place(source, target):
    """Copies a file beside its place, then moves it there: a careful operator's way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".part")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


def test_versions_come_and_go_under_load_and_no_request_is_lost(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    good = MODELS / "iris" / "1" / "model.h5"
    over = threading.Event()
    with serve(tmp_path, poll_interval_s=0.1, default_model="iris") as service:
        service.until_ready()

        def version():
            return service.get("/models/iris").json["version"]

        def ask(_):
            """Asks until it is over, and once more: whoever waited for an answer then has not seen the end."""
            seen, last = [], False
            with service.connect() as connection:
                while not last:
                    last = over.is_set()
                    answer = connection.post("/predict", b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}')
                    seen.append((answer.status, answer.json.get("version"), str(answer.json.get("labels"))))
            return seen

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(ask, number) for number in range(CLIENTS)]
            try:
                place(good, tmp_path / "iris" / "2" / "model.h5")
                service.until(lambda: version() == 2, "version 2")
                (tmp_path / "iris" / "3").mkdir()
                (tmp_path / "iris" / "3" / "model.h5").write_bytes(good.read_bytes()[:5000])
                service.until_logged("model 'iris' version 3:")
                assert version() == 2
                place(good, tmp_path / "iris" / "3" / "model.h5")
                service.until(lambda: version() == 3, "version 3")
            finally:
                over.set()
            seen = [client.result() for client in clients]
        for answers in seen:
            assert {(status, labels) for status, _, labels in answers} == {(200, "[0]")}
            versions = [version for _, version, _ in answers]
            assert versions == sorted(versions)
            assert versions[0] == 1
            assert versions[-1] == 3
        assert service.metric("layertap_requests_total", route="predict", code="503") == 0
        shutil.rmtree(tmp_path / "iris")  # as a volume that is no longer mounted
        service.until_logged("what is served goes on")
        assert service.post_rows("/predict?model=iris", IRIS).status == 200
        place(good, tmp_path / "other" / "1" / "model.h5")
        service.until(lambda: service.post_rows("/predict?model=other", IRIS).status == 200, "another model")
        assert service.post_rows("/predict?model=iris", IRIS).status == 200
        odd_models.copy_shipped("iris", tmp_path)
        service.until_logged("in the folder again")
        shutil.rmtree(tmp_path / "iris")
        service.until(lambda: service.post_rows("/predict?model=iris", IRIS).status == 404, "its end")
        odd_models.copy_shipped("iris", tmp_path)
        service.until(lambda: service.post_rows("/predict?model=iris", IRIS).status == 200, "its return")
