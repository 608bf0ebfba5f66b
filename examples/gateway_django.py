"""The gateway beside a Django project, in one ASGI app: `/agents/…` is the gateway, Django says who a caller is.

Run: AGENTRQ_REDIS_URL=redis://… uvicorn --app-dir examples gateway_django:app
Writes that come with Django's cookie have to come from a page of this site, as the gateway checks by itself.
"""

import os

from django.conf import settings
from django.core import signing
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from starlette.requests import Request
from starlette.routing import Mount, Router

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant

settings.configure(DEBUG=False, ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__, SECRET_KEY="example")


def hello(_: HttpRequest) -> JsonResponse:
    return JsonResponse({"agents": "/agents"})


def log_in(_: HttpRequest, user: str) -> HttpResponse:
    """In a real project: Django's own login."""
    response = HttpResponse(status=204)
    response.set_cookie("user", signing.dumps(user), httponly=True, samesite="Strict")
    return response


def find_grant(request: Request) -> Grant | None:
    try:
        user: str = signing.loads(request.cookies.get("user", ""), max_age=86400)
    except signing.BadSignature:
        return None
    return Grant(subject=user, tenant=user)


urlpatterns = [path("", hello), path("log-in/<str:user>", log_in)]
gateway = Gateway(AsyncAgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"]), auth=find_grant)
app = Router([Mount("/agents", gateway), Mount("/", get_asgi_application())])
