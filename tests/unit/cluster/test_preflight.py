"""What the machine has, read from its own tables."""

from tests.cluster.preflight import listening_ports

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
"""


def test_only_listening_sockets_hold_a_port() -> None:
    assert listening_ports(TABLE) == {2379: "4711"}
