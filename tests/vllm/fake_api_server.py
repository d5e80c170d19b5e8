"""Stands for vLLM's server where the process is what matters: ``fake_api_server.py PORT [HOW]``. It
has a child, as vLLM has its engine; its pid is the first word of its log. HOW: ``deaf`` never
answers, ``broken`` ends with an error, ``dies:N`` ends without a word at every N-th question."""

import hashlib
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, how = int(sys.argv[1]), (*sys.argv[2:], "")[0]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, os.getpid(), flush=True)
if how == "broken":
    sys.exit("ValueError: no such model")
if how == "deaf":
    time.sleep(600)
asked = []


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.say({"data": [{"id": "base"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked.append(body)
        if how.startswith("dies:") and len(asked) == int(how[5:]):
            os._exit(1)
        if self.headers["Authorization"] != f"Bearer {os.environ['KEY']}":
            self.send_error(401)
            return
        text = hashlib.sha256(body).hexdigest()[:12]
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        self.say({"choices": [choice]})

    def say(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
