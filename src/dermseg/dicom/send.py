"""Results to the archive: C-STORE over one association, or STOW-RS.

An archive that has an object already is as good as one that takes it: UIDs are derived from their causes, so
it can only be the same result (status 0111, duplicate SOP instance). HTTP 409 does not say that: it is how
STOW-RS says that nothing was stored, for whatever reason (PS3.18 10.5.3). Then the archive is asked. So it is
where HTTP 200 does not name the object: that may be a proxy's word, and what is stored is removed here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import ParseError

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt

from dermseg.dicom.config import Dimse, Send, Web, check_authority, read_secret
from dermseg.errors import DermsegError

_DUPLICATE = 0x0111


class SendError(DermsegError):
    """The archive did not take the results. ``final``: trying again cannot help."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def check_target(target: Send) -> None:
    """See, before images are accepted, that the secret or the certificates for the archive are there.

    Raises
    ------
    ConfigError
        One is missing, cannot be read or does not fit.
    """
    if target.web is not None:
        web_client(target.web)
    elif target.dimse is not None and target.dimse.tls is not None:
        target.dimse.tls.context(server=False)


def send(objects: Sequence[Dataset], target: Send) -> None:
    """Send objects in order; returns when the archive has them all.

    Raises
    ------
    SendError
        It cannot be reached or refuses one.
    """
    if target.dimse is not None:
        _send_dimse(objects, target.dimse)
    else:
        assert target.web is not None
        _send_web(objects, target.web)


def _send_dimse(objects: Sequence[Dataset], target: Dimse) -> None:
    entity = AE(ae_title=target.calling_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = target.timeout_s
    entity.connection_timeout = target.timeout_s
    for dataset in objects:
        syntax = dataset.file_meta.TransferSyntaxUID
        entity.add_requested_context(dataset.SOPClassUID, syntax)
        if not syntax.is_encapsulated:  # what every archive must read, and old ones read nothing else
            entity.add_requested_context(dataset.SOPClassUID, ImplicitVRLittleEndian)
    tls = None if target.tls is None else (target.tls.context(server=False), target.host)
    refusals: list[str] = []

    def listen(event: Any) -> None:
        if getattr(event.primitive, "result", 0):
            refusals.append(event.primitive.reason_str)

    def limit(event: Any) -> None:
        # pynetdicom has a limit for answers only. An archive that hangs takes no more bytes, and could then
        # not even be given up: abort() waits for the thread that waits for the archive.
        event.assoc.dul.socket.socket.settimeout(target.timeout_s)

    where = f"{target.ae_title} at {target.host}:{target.port}"
    try:
        association = entity.associate(
            target.host,
            target.port,
            ae_title=target.ae_title,
            tls_args=tls,
            evt_handlers=[(evt.EVT_ACSE_RECV, listen), (evt.EVT_CONN_OPEN, limit)],
        )
    except OSError as error:  # its name has no address
        raise SendError(f"{where} cannot be reached ({error.strerror or error})") from error
    if association.rejected_contexts and not association.accepted_contexts:
        names = ", ".join(dict.fromkeys(dataset.SOPClassUID.name for dataset in objects))
        raise SendError(f"{target.ae_title} takes none of {names}", final=True)
    if not association.is_established:
        if association.is_rejected:
            why = f"refused the association ({', '.join(refusals) or 'no reason given'})"
        else:
            why = f"cannot be reached ({_obstacle(target)})"
        raise SendError(f"{where} {why}")
    try:
        for dataset in objects:
            try:
                answer = association.send_c_store(dataset)
            except ValueError as error:  # no accepted presentation context
                raise SendError(
                    f"{target.ae_title} does not take {dataset.SOPClassUID.name}", final=True
                ) from error
            except RuntimeError as error:
                raise SendError(f"the association with {target.ae_title} broke") from error
            status = answer.get("Status")
            if status is None:
                raise SendError(f"{target.ae_title} gave no answer")
            if status not in (0, _DUPLICATE) and status >> 12 != 0xB:  # B...: stored, with a remark
                raise SendError(f"{target.ae_title} refused {dataset.SOPClassUID.name}: status {status:04X}")
    finally:
        if association.is_established:
            association.release()


def _obstacle(target: Dimse) -> str:
    """What keeps connections from an archive: one more is tried, as pynetdicom does not say."""
    try:
        with socket.create_connection((target.host, target.port), target.timeout_s) as connection:
            if target.tls is not None:
                context = target.tls.context(server=False)
                context.wrap_socket(connection, server_hostname=target.host).close()
    except ssl.SSLCertVerificationError as error:
        return f"its certificate: {error.verify_message}"
    except OSError as error:  # TLS too
        return str(getattr(error, "reason", None) or error.strerror or error or type(error).__name__)
    return "it broke off or did not answer"


class _Session(requests.Session):
    """Trusts the authority that the configuration names: REQUESTS_CA_BUNDLE has precedence in requests."""

    def merge_environment_settings(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Proxies of the environment, but not its authorities where there is one of its own."""
        merged: dict[str, Any] = super().merge_environment_settings(*arguments, **options)
        return merged | ({"verify": self.verify} if isinstance(self.verify, str) else {})


class _Headers(requests.auth.AuthBase):
    """Headers, a token among them, as what requests calls authorization: else ``.netrc`` has precedence."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put them into a request that is about to be sent."""
        request.headers.update(self.headers)
        return request


def web_client(web: Web) -> DICOMwebClient:
    """A client for an archive, with its password or token.

    Raises
    ------
    ConfigError
        The secret is missing, or the authority is no file of certificates.
    """
    session = _Session()
    if web.authority is not None:
        if not web.authority.is_dir():  # of names that are hashes, as OpenSSL has them
            check_authority(web.authority)
        session.verify = str(web.authority)
    session.headers["Accept"] = "application/dicom+json"  # of what is asked without saying which form
    session.hooks["response"].append(_plain_type)
    secret = read_secret(web)
    session.auth = _Headers(secret["headers"]) if "headers" in secret else secret.get("auth")
    client = DICOMwebClient(web.url.rstrip("/"), session=session, timeout=web.timeout_s)
    client.set_http_retry_params(retry=False)  # the queue and the watcher try again, in their own time
    return client


class WebPageError(requests.RequestException):
    """A page for people where an archive should answer: a proxy's login, as a rule."""


def _plain_type(response: requests.Response, *arguments: Any, **options: Any) -> None:
    """Of ``application/dicom+json; charset=utf-8`` only the type: the client passes over any other text."""
    kind = response.headers.get("Content-Type", "").lower()
    if kind.startswith("application/"):
        response.headers["Content-Type"] = kind.partition(";")[0].strip()
    elif kind.startswith("text/html") and response.status_code < 300:
        response.close()
        raise WebPageError("it answers with a web page; is it a login?")


def _send_web(objects: Sequence[Dataset], web: Web) -> None:
    client = web_client(web)
    for dataset in objects:
        name = dataset.SOPClassUID.name
        try:
            answer = client.store_instances([dataset])
        except requests.HTTPError as error:
            code = 0 if error.response is None else error.response.status_code
            if (
                error.response is not None
                and code == 409
                and _is_refused_copy(client, dataset, error.response)
            ):
                continue
            final = code in (400, 413, 415)
            raise SendError(f"{web.url} refused {name}: HTTP {code}", final=final) from error
        except (requests.JSONDecodeError, ParseError, AttributeError, TypeError, KeyError):
            answer = Dataset()  # nothing that can be understood
        except requests.RequestException as error:
            raise SendError(f"{web.url} cannot be reached ({cause_of(error)})") from error
        reasons = _reasons(answer)
        if reasons - {_DUPLICATE}:
            shown = ", ".join(f"{reason:04X}" for reason in sorted(reasons - {_DUPLICATE}))
            raise SendError(f"{web.url} refused {name}: reason {shown}")
        stored = {item.get("ReferencedSOPInstanceUID") for item in answer.get("ReferencedSOPSequence") or []}
        if not reasons and dataset.SOPInstanceUID not in stored and _is_there(client, dataset) is False:
            raise SendError(f"{web.url} does not say that it stored {name}, and does not list it")


def cause_of(error: BaseException) -> str:
    """Why a request failed, in the system's words, which lie some errors deep; no address, no value."""
    if isinstance(error, DermsegError):
        return error.message
    if isinstance(error, WebPageError):
        return str(error)
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    found: BaseException | None = error
    while found is not None:
        words = getattr(found, "verify_message", None) or getattr(found, "strerror", None)
        if words:
            return str(words)
        found = found.__cause__ or found.__context__
    return type(error).__name__


def _reasons(answer: Dataset) -> set[int]:
    failed = answer.get("FailedSOPSequence") or []
    return {int(item.get("FailureReason") or 0) for item in failed}


def _is_refused_copy(client: DICOMwebClient, dataset: Dataset, refusal: requests.Response) -> bool:
    """Whether an archive that stored nothing has the object: it says so, or it is asked."""
    try:
        if _reasons(Dataset.from_json(refusal.json())) == {_DUPLICATE}:
            return True
    except (ValueError, TypeError, KeyError, AttributeError):  # no body, XML, or a text of its own
        pass
    return _is_there(client, dataset) is True


def _is_there(client: DICOMwebClient, dataset: Dataset) -> bool | None:
    """Whether an archive lists an object (QIDO-RS); None where it does not take the question."""
    uid = str(dataset.SOPInstanceUID)
    try:
        found = client.search_for_instances(
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
            search_filters={"SOPInstanceUID": uid},
        )
        return any(Dataset.from_json(item).get("SOPInstanceUID") == uid for item in found)
    except requests.HTTPError:
        return None
    except (requests.RequestException, ValueError, TypeError, KeyError, AttributeError):
        return False
