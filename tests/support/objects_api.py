"""The verbs of `cluster.api.KubeApi` over objects in memory, for what is about the order and the outcome of writes."""

from voicefleet_operator.cluster.api import KubeError


class Api:
    """``refuse`` is kind, or (kind, name), → the status or the error with which its writes end."""

    def __init__(self):
        self.objects, self.calls, self.refuse, self.version = {}, [], {}, 0

    async def list(self, kind, labels=""):
        return [body for (k, _), body in self.objects.items() if k == kind]

    async def get(self, kind, name):
        return self.objects.get((kind, name))

    async def create(self, kind, body):
        return self._write("create", kind, body)

    async def replace(self, kind, body):
        return self._write("replace", kind, body)

    async def apply(self, kind, body, *, subresource=""):
        there = self.objects.get((kind, body["metadata"]["name"]))
        if subresource and there is not None:
            body = {**there, subresource: body[subresource]}
        return self._write("apply", kind, body)

    async def merge(self, kind, name, patch):
        return self._write("merge", kind, {"metadata": {**patch["metadata"], "name": name}})

    async def delete(self, kind, name, *, uid="", grace_s=None):
        self.calls.append(("delete", kind, name))
        self.objects.pop((kind, name), None)

    def _write(self, verb, kind, body):
        self.calls.append((verb, kind, body["metadata"]["name"]))
        for key in (kind, (kind, body["metadata"]["name"])):
            if isinstance(self.refuse.get(key), KubeError):
                raise self.refuse[key]
            if key in self.refuse:
                raise KubeError(self.refuse[key], verb, f"no {body['metadata']['name']}")
        self.version += 1
        made = {**body, "metadata": {"uid": "u", **body["metadata"], "resourceVersion": str(self.version)}}
        self.objects[kind, body["metadata"]["name"]] = made
        return made
