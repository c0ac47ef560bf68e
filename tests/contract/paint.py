"""Paints through the client that was generated from openapi.yaml: posts, waits, and looks at the picture."""

import os
import struct
import sys
from uuid import UUID

from easel_client import AuthenticatedClient
from easel_client.api.jobs import generate, get_image, get_job
from easel_client.models import GenerateRequest, Job, JobStatus
from easel_client.types import File

WIDTH, HEIGHT = 96, 64
ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


def submit(client: AuthenticatedClient) -> Job:
    body = GenerateRequest(prompt="a red house on a hill", width=WIDTH, height=HEIGHT, num_inference_steps=4, seed=7)
    job = generate.sync(client=client, body=body, prefer="wait=30")
    assert isinstance(job, Job), job
    return job


def wait(client: AuthenticatedClient, id: UUID) -> Job:
    while True:
        job = get_job.sync(id, client=client)
        assert isinstance(job, Job), job
        if job.status in ENDED:
            return job


def main(url: str) -> None:
    with AuthenticatedClient(base_url=url, token=os.environ["EASEL_KEY"], raise_on_unexpected_status=True) as client:
        job = wait(client, submit(client).id)
        assert job.status == JobStatus.SUCCEEDED, job
        picture = get_image.sync(job.id, 0, client=client)
        assert isinstance(picture, File), picture
        png = picture.payload.read()
        assert png.startswith(b"\x89PNG\r\n\x1a\n"), png[:16]
        assert struct.unpack(">II", png[16:24]) == (WIDTH, HEIGHT), png[16:24]
        print(f"the generated client painted {len(png)} bytes of PNG, {WIDTH} x {HEIGHT}")


main(sys.argv[1])
