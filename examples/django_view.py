"""A Django project in one file: a view that starts a session and one that shows where it stands.

Run: AGENTRQ_REDIS_URL=redis://… python examples/django_view.py runserver 127.0.0.1:8000 --noreload
"""

import json
import os
import sys
from functools import cache

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from agentrq import AgentClient, AgentRQError
from agentrq.wire.state import to_wire

settings.configure(DEBUG=False, ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__, SECRET_KEY="example")


@cache
def client() -> AgentClient:
    return AgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"])


@csrf_exempt
def sessions(request: HttpRequest) -> JsonResponse:
    try:
        wanted = json.loads(request.body)
        session = client().start(wanted["provider"], wanted["prompt"], cwd=wanted.get("cwd"))
    except AgentRQError as error:
        return JsonResponse({"error": str(error)}, status=409)
    except (ValueError, KeyError, TypeError) as error:
        return JsonResponse({"error": f"provider and prompt are needed: {error}"}, status=400)
    return JsonResponse({"sessionId": session.id}, status=201)


def session(request: HttpRequest, session_id: str) -> JsonResponse:
    try:
        return JsonResponse(to_wire(client().session(session_id).state()))
    except AgentRQError as error:
        return JsonResponse({"error": str(error)}, status=404)


urlpatterns = [path("sessions", sessions), path("sessions/<str:session_id>", session)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
