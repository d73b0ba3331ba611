"""The receiver: a C-STORE service that answers success only when an image is on the disk and in the queue.

Also C-ECHO, and Storage Commitment (PS3.4 J) where it is configured: then every received file is kept, and
what is asked about is answered by looking whether the file is there.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification
from pynetdicom.transport import ThreadedAssociationServer

from dermseg.dicom.config import PacsConfig
from dermseg.dicom.identity import is_ours
from dermseg.dicom.queue import Queue, QueueError, State
from dermseg.dicom.work import Worker, log, reason_of
from dermseg.errors import DermsegError, UsageError
from dermseg.images.dicom import read_dataset

# VL Photographic, Dermoscopic Photography, Secondary Capture and its multi-frame kinds in colour and grey.
IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.77.1.4",
    "1.2.840.10008.5.1.4.1.1.77.1.7",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.4",
)
SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
)
_OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0xA700, 0xC000
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_GREETING_S = 10.0  # a client speaks first, and at once
# Amid a message, after which a client is gone: switched off, or out of reach of its network.
_SILENCE_S = 30.0


class _Server(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom has no types
    """Keeps nobody waiting for a client that says nothing: a port scan, a check, a camera switched off.

    pynetdicom does the TLS handshake before it takes the next connection, without a limit of time, and
    counts a connection that was closed again as an association for half a minute. Of a message that has begun
    it waits for the rest without a limit, and then even for the end of the association.
    """

    request_queue_size = 128  # with the usual 5, of more that come at once some wait for a second or longer

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; its handshake is left to its own thread."""
        client, address = self.socket.accept()
        try:
            client.settimeout(_GREETING_S)
            if self.ssl_context:
                client.getpeername()  # who is gone already: what is wrapped then is left open
                client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        except OSError:
            client.close()
            raise
        return client, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make an association of a connection once its client has said something."""
        try:
            if self.ssl_context:
                request.do_handshake()
            elif not request.recv(1, socket.MSG_PEEK):
                raise ConnectionError
            request.settimeout(_SILENCE_S)
        except OSError as error:
            said = getattr(error, "verify_message", None) or getattr(error, "reason", None)
            if said and not isinstance(error, ssl.SSLEOFError):  # a client that went away says nothing
                log("refused", reason=f"TLS: {said}")
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)


def _offered(context: Any) -> str:
    """A class that was offered, by its name: what is no class of the standard may be any text."""
    uid = UID(str(context.abstract_syntax))
    name = "an unknown class" if uid.name == str(uid) else uid.name
    return f"{name} in these transfer syntaxes" if str(uid) in IMAGE_CLASSES else name


class Receiver:
    """The service, on threads of its own.

    Parameters
    ----------
    queue, worker
        Where images go.
    config
        Port, titles, TLS.
    """

    def __init__(self, queue: Queue, worker: Worker, config: PacsConfig) -> None:
        self.queue = queue
        self.worker = worker
        self.config = config
        entity = AE(ae_title=config.listen.ae_title)
        entity.add_supported_context(Verification)
        for uid in IMAGE_CLASSES:
            entity.add_supported_context(uid, list(SYNTAXES))
        if config.listen.storage_commitment:
            entity.add_supported_context(StorageCommitmentPushModel)
        entity.require_calling_aet = list(config.listen.callers)
        entity.require_called_aet = True
        entity.maximum_associations = 32
        entity.network_timeout = 60
        entity.acse_timeout = _GREETING_S
        self._entity = entity
        self._server: Any = None

    def start(self) -> None:
        """Begin to listen; returns at once.

        Raises
        ------
        UsageError
            The port is taken or the address is not one of this machine.
        """
        listen = self.config.listen
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commit),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_ACCEPTED, self._accepted),
        ]
        tls = None if listen.tls is None else listen.tls.context(server=True)
        try:
            self._server = self._entity.make_server(
                (listen.address, listen.port), evt_handlers=handlers, ssl_context=tls, server_class=_Server
            )
        except OSError as error:
            raise UsageError(
                f"cannot listen on {listen.address}:{listen.port}: {error.strerror or error}",
                hint="another program may have the port",
            ) from None
        self._entity._servers.append(self._server)  # as its start_server does, which takes no class of ours
        threading.Thread(target=self._server.serve_forever, name="acceptor", daemon=True).start()

    def stop(self) -> None:
        """End all associations and stop listening."""
        if self._server is not None:
            self._server.shutdown()
        self._entity.shutdown()

    def _rejected(self, event: Any) -> None:
        """Say why a caller gets no association: wrong titles are the usual mistake of a first connection."""
        request, listen = event.assoc.requestor.primitive, self.config.listen
        caller, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        if called != listen.ae_title:
            reason = f"it asked for the AE title {called}"
        elif listen.callers and caller not in listen.callers:
            reason = "it is none of the callers"
        else:
            reason = "too many associations"
        log("refused", caller=caller, reason=reason)

    def _accepted(self, event: Any) -> None:
        """Say so where an association allows no image."""
        taken = {str(context.abstract_syntax) for context in event.assoc.accepted_contexts}
        refused = event.assoc.rejected_contexts
        if not refused or taken & {*IMAGE_CLASSES, StorageCommitmentPushModel}:
            return
        names = {_offered(context) for context in refused}
        reason = f"takes none of {', '.join(sorted(names)[:5])}"
        log("refused", caller=str(event.assoc.requestor.ae_title).strip(), reason=reason)

    def _store(self, event: Any) -> int:
        caller = str(event.assoc.requestor.ae_title).strip()
        try:
            if self.queue.waiting() >= self.config.max_waiting:
                log("refused", caller=caller, reason="too many images wait")
                return _OUT_OF_RESOURCES
            uid = str(event.request.AffectedSOPInstanceUID)
            if self.queue.knows(uid, self.worker.work_key):
                log("duplicate", caller=caller)
                return 0
            data = event.encoded_dataset()
            # Not event.dataset: that unpacks and reads whatever comes, without limits.
            state: State = "ignored" if is_ours(read_dataset(data)) else "received"
            self.queue.add(uid, self.worker.work_key, caller, data, state=state)
            log(state, caller=caller)
            return 0
        except Exception as error:
            log("refused", caller=caller, reason=reason_of(error))
            return _OUT_OF_RESOURCES if isinstance(error, QueueError) else _CANNOT_UNDERSTAND

    def _commit(self, event: Any) -> tuple[int, Dataset | None]:
        """Storage commitment: accepted now, answered by an event report (PS3.4 J.3)."""
        try:
            request = event.action_information
            asked = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in request.ReferencedSOPSequence
            ]
            answer = self._commitment(str(request.TransactionUID), asked)
        except Exception as error:
            log("commitment_refused", reason=type(error).__name__)
            return 0x0110, None
        threading.Thread(target=self._report, args=(event.assoc, answer), daemon=True).start()
        return 0, None

    def _commitment(self, transaction: str, asked: list[tuple[str, str]]) -> Dataset:
        answer = Dataset()
        answer.TransactionUID = transaction
        kept: list[Dataset] = []
        missing: list[Dataset] = []
        for class_uid, uid in asked:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, uid
            try:
                there = self.queue.received_path(uid).is_file()
            except DermsegError:
                there = False
            if not there:
                item.FailureReason = 0x0112  # no such object instance
            (kept if there else missing).append(item)
        if kept:
            answer.ReferencedSOPSequence = kept
        if missing:
            answer.FailedSOPSequence = missing
        return answer

    def _report(self, association: Any, answer: Dataset) -> None:
        """N-EVENT-REPORT: to the configured archive on an association of its own, else on this one."""
        event_type = 2 if "FailedSOPSequence" in answer else 1
        caller = str(association.requestor.ae_title).strip()
        target = self.config.send.dimse
        own = None
        try:
            if target is not None and target.ae_title == caller:
                entity = AE(ae_title=self.config.listen.ae_title)
                entity.add_requested_context(StorageCommitmentPushModel)
                entity.connection_timeout = entity.acse_timeout = target.timeout_s
                tls = None if target.tls is None else (target.tls.context(server=False), target.host)
                role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
                own = association = entity.associate(
                    target.host, target.port, ae_title=target.ae_title, ext_neg=[role], tls_args=tls
                )
            association.send_n_event_report(
                answer, event_type, StorageCommitmentPushModel, _COMMITMENT_INSTANCE
            )
            log("commitment", missing=len(answer.get("FailedSOPSequence") or []))
        except Exception as error:
            log("commitment_not_reported", reason=type(error).__name__)
        finally:
            if own is not None and own.is_established:
                own.release()
