"""What a hostile agent may say: attempts to run as code, put through every field that a runner can set."""

from __future__ import annotations

from typing import Any

from tests.producer.session_writer import Writer

ATTEMPTS = (
    "<script>pwned=1</script>",
    "<img src=x onerror=pwned=1>",
    "<svg onload=pwned=1>",
    "<svg><script>pwned=1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<iframe src=javascript:parent.pwned=1></iframe>",
    "<a href=javascript:pwned=1>click</a>",
    "<details open ontoggle=pwned=1>x</details>",
    "<input autofocus onfocus=pwned=1>",
    "<style>@import'//evil.example/x.css'</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<form action=//evil.example/><button>go</button></form>",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned=1>",
    "</textarea></title></style><script>pwned=1</script>",
    "\"><script>pwned=1</script>",
    "' onmouseover='pwned=1",
    "`${pwned=1}`",
    "${pwned=1}",
    "{{constructor.constructor('pwned=1')()}}",
    "[link](javascript:pwned=1)",
    "[link](JaVaScRiPt:pwned=1)",
    "[link]( java\tscript:pwned=1)",
    "[link](data:text/html,<script>pwned=1</script>)",
    "[link](vbscript:pwned=1)",
    "[link](//evil.example/)",
    "[https://bank.example](https://evil.example/)",
    "![image](https://evil.example/pixel.png)",
    "![image](javascript:pwned=1)",
    "<javascript:pwned=1>",
    "https://evil.example/\"onmouseover=\"pwned=1",
    "```<script>pwned=1</script>\n<img src=x onerror=pwned=1>\n```",
    "| <img src=x onerror=pwned=1> | b |\n|---|---|\n| [x](javascript:pwned=1) | <svg onload=pwned=1> |",
    "\x1b]8;;javascript:pwned=1\x07link\x1b]8;;\x07",
    "\x1b[31m<script>pwned=1</script>\x1b[0m",
    "\x1b]0;<script>pwned=1</script>\x07",
    "\x1b[38;2;255;255;255mwhite\x1b[8mhidden\x1b[0m",
    "harmless\rrm -rf /",
    "user\u202egpj.exe",
    "\u2066\u2067isolated\u2069",
    "zero\u200bwidth\ufeff\u00ad",
    "tag \U000e0041\U000e0042 characters",
    "null\x00 bell\x07 backspace\x08",
    "constructor",
    "__proto__",
    "toString",
    "javascript:pwned=1",
)  # fmt: skip


def everywhere(attempt: str) -> list[tuple[str, Any]]:
    """One message of each type, the attempt in every text of it, also in names of members."""
    deep: dict[str, Any] = {attempt: {attempt: [attempt, {"a": attempt}]}}
    return [
        ("init", {"providerSessionId": attempt, "model": attempt, "cwd": attempt, "tools": [attempt]}),
        ("prompt", {"text": attempt, "commandId": attempt}),
        ("text", {"text": attempt, "blockId": attempt}),
        ("thinking", {"text": attempt, "blockId": attempt}),
        ("tool_call", {"toolUseId": f"1{attempt}", "name": attempt, "input": {"command": attempt, attempt: attempt}}),
        ("tool_result", {"toolUseId": f"1{attempt}", "output": attempt, "isError": False}),
        ("tool_call", {"toolUseId": f"2{attempt}", "name": attempt, "input": deep}),
        ("tool_result", {"toolUseId": f"2{attempt}", "output": [{"type": attempt, "text": attempt}], "isError": True}),
        ("tool_call", {"toolUseId": f"3{attempt}", "name": attempt, "input": {
            "file_path": attempt, "old_string": f"{attempt}\nold", "new_string": attempt, "content": attempt}}),
        ("tool_call", {"toolUseId": f"4{attempt}", "name": attempt, "input": {
            "changes": [{"path": attempt, "kind": attempt, "diff": f"@@ {attempt}\n+{attempt}\n-{attempt}"}]}}),
        ("tool_result", {"toolUseId": f"none{attempt}", "output": deep, "isError": True}),
        ("status", {"subtype": attempt, "message": attempt}),
        ("compaction", {"trigger": attempt, "preTokens": attempt}),
        ("cost", {"totalCostUsd": 0.1, "durationMs": 1, "inputTokens": 1, "outputTokens": 1, "numTurns": 1,
                  "isError": True, "result": attempt, "errors": [attempt]}),
        ("approval_request", {"requestId": f"a{attempt}", "name": attempt, "suggestions": [attempt],
                              "input": {"command": attempt, attempt: attempt}}),
        ("question", {"requestId": f"q{attempt}", "questions": [
            {"id": attempt, "header": attempt, "question": attempt,
             "options": [{"label": attempt, "description": attempt}, attempt]},
            {"id": f"f{attempt}", "question": attempt, "requestedSchema": {"type": "object", "properties": {
                attempt: {"title": attempt, "description": attempt, "enum": [attempt]},
                f"b{attempt}": {"type": "boolean", "title": attempt}}}},
            attempt]}),
        ("approval_resolved", {"requestId": f"none{attempt}", "decision": attempt, "by": attempt}),
        ("rate_limit", {"scope": attempt, "message": attempt, "resetsAt": attempt}),
        ("error", {"message": attempt, "code": attempt, "excerpt": attempt}),
        ("checkpoint", {"turn": attempt, "commit": attempt, "files": attempt, "leftOut": [attempt]}),
        ("workspace_restored", {"turn": attempt, "commit": attempt, "lost": True}),
        ("unknown", deep),
        (attempt or "odd", {"text": attempt}),
    ]  # fmt: skip


def write_session(url: str, session_id: str, attempts: tuple[str, ...], provider: str = "fake") -> Writer:
    """A session of a runner that says these things, and then works on."""
    given = [attempt for attempt in attempts if "\x00" not in attempt]  # a start refuses it
    metadata = {f"m{place}": attempt for place, attempt in enumerate(given)} | dict.fromkeys(given, "name")
    writer = Writer.start(url, session_id, metadata=metadata)
    writer.statuses("running")
    for attempt in attempts:
        for kind, content in everywhere(attempt):
            writer.message(kind, content, parentId=f"1{attempt}" if kind in ("text", "unknown") else "")
        writer.receipt(attempt, attempt, "rejected", reason=attempt)
    return writer
