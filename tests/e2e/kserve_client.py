"""Owns what is asked through KServe's own SDK; it runs in an environment that has it, which the tests' has not.

`python kserve_client.py URL`: URL is the service's. Prints one JSON object, name of a question -> what came of it;
an HTTP error is its status and its message.
"""

import asyncio
import json
import sys

import httpx
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve_client_rows import DIGIT, ROWS


def request(*, binary_in, binary_out):
    """Two rows for the model iris."""
    rows = InferInput("measurements", list(ROWS.shape), "FP32")
    rows.set_data_from_numpy(ROWS, binary_data=binary_in)
    return InferRequest("iris", [rows], request_id="mine", parameters={"binary_data_output": binary_out})


def layers_of_a_digit():
    """One row for the model digits, its output and a hidden layer wanted, one of them in JSON."""
    row = InferInput("image", list(DIGIT.shape), "FP32")
    row.set_data_from_numpy(DIGIT, binary_data=True)
    outputs = [RequestedOutput("predictions"), RequestedOutput("pool", {"binary_data": False})]
    return InferRequest("digits", [row], parameters={"binary_data_output": True}, request_outputs=outputs)


def told(response):
    outputs = {output.name: output.as_numpy().tolist() for output in response.outputs}
    return {"model": response.model_name, "id": response.id, "outputs": outputs}


async def ask_v1(url):
    """Question -> answer, by KServe's V1 protocol."""
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        rows, columns = {"instances": ROWS.tolist()}, {"inputs": ROWS.tolist()}
        layer = {"signature_name": "layer:pool", "instances": DIGIT.tolist()}
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_model_ready(url, "iris"),
            "broken ready": await client.is_model_ready(url, "broken"),
            "unknown ready": await error_of(client.is_model_ready(url, "irs")),
            "rows": await client.infer(url, rows, model_name="iris"),
            "columns": await client.infer(url, columns, model_name="iris"),
            "layer": await client.infer(url, layer, model_name="digits"),
            "explain": await error_of(client.explain(url, "iris", rows)),
            "unknown": await error_of(client.infer(url, rows, model_name="irs")),
            "bad": await error_of(client.infer(url, {"instances": [[1]]}, model_name="iris")),
        }


async def ask_v2(url):
    """Question -> answer, by the Open Inference Protocol V2."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers = {
            "live": await client.is_server_live(url),
            "server ready": await client.is_server_ready(url),
            "ready": await client.is_model_ready(url, "iris"),
            "broken ready": await client.is_model_ready(url, "broken"),
            "unknown": await error_of(client.infer(url, request(binary_in=True, binary_out=True), "irs")),
        }
        for binary_in in (False, True):
            for binary_out in (False, True):
                asked = request(binary_in=binary_in, binary_out=binary_out)
                answer = await client.infer(url, asked, model_name="iris")
                answers[f"{binary_in} {binary_out}"] = told(answer)
        plain = request(binary_in=False, binary_out=False).to_rest()[0]
        answers["as a dict"] = told(await client.infer(url, plain, model_name="iris"))
        answers["layers"] = told(await client.infer(url, layers_of_a_digit(), model_name="digits"))
        return answers


async def error_of(call):
    """The status and the message of the error that a call ends in; its result where it ends well."""
    try:
        return await call
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]


async def main():
    url = sys.argv[1]
    print(json.dumps({"v1": await ask_v1(url), "v2": await ask_v2(url)}))


asyncio.run(main())
