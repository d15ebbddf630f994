"""One installation on one machine: the servers, the workers, the API and the sandbox, kept running by one parent."""

from notifier.supervise.instance import Instance
from notifier.supervise.supervisor import Ports, Supervisor
from notifier.supervise.terminal import Lines, Progress

__all__ = ["Instance", "Lines", "Ports", "Progress", "Supervisor"]
