"""Whom the real service believes: the environment, the folder, and who sends requests. It starts without models."""

from serving import serve

KUBERNETES = {
    f"LAYERTAP_{name}_{variable}": value
    for name in ("METRICS", "CANARY", "HEADLESS", "PREDICTOR")
    for variable, value in (
        ("SERVICE_HOST", "10.0.0.7"),
        ("SERVICE_PORT", "80"),
        ("SERVICE_PORT_HTTP", "80"),
        ("PORT", "tcp://10.0.0.7:80"),
        ("PORT_80_TCP", "tcp://10.0.0.7:80"),
        ("PORT_80_TCP_ADDR", "10.0.0.7"),
    )
}


def test_variables_of_other_services_do_not_stop_the_start(tmp_path):
    with serve(tmp_path, environ=KUBERNETES | {"LAYERTAP_WORKRES": "2"}) as service:
        service.until_listening()
        line = service.until_logged("LAYERTAP_WORKRES")
        assert "Did you mean 'workers'?" in line
        assert "LAYERTAP_CANARY" not in service.log
