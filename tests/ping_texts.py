# ruff: noqa: RUF001  # other languages
"""What real pings printed, recorded on one machine over loopback (standard output, then error).

iputils 20221126, busybox 1.35, toybox 0.8.9, inetutils 2.4, fping 5.1, oping 1.10; what others
print is written by hand after their sources. Each has what is right: flavour, first icmp_seq,
sent/received, rows as seq:status:RTT [ns].
"""

from __future__ import annotations

REAL: dict[str, tuple[str, str]] = {
    "busybox": (
        """\
PING 127.0.0.1 (127.0.0.1): 56 data bytes
64 bytes from 127.0.0.1: seq=0 ttl=64 time=0.162 ms
64 bytes from 127.0.0.1: seq=1 ttl=64 time=0.060 ms

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 0.060/0.111/0.162 ms
""",
        "busybox 0 2/2 0:replied:162000 1:replied:60000",
    ),
    "busybox -I ADDRESS": (
        """\
PING 127.0.0.2 (127.0.0.2) from 127.0.0.1: 56 data bytes
64 bytes from 127.0.0.2: seq=0 ttl=64 time=0.560 ms
64 bytes from 127.0.0.2: seq=1 ttl=64 time=0.066 ms

--- 127.0.0.2 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 0.066/0.313/0.560 ms
""",
        "busybox 0 2/2 0:replied:560000 1:replied:66000",
    ),
    "busybox -s 0": (
        """\
PING 127.0.0.1 (127.0.0.1): 0 data bytes
8 bytes from 127.0.0.1: seq=0 ttl=64
8 bytes from 127.0.0.1: seq=1 ttl=64

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
""",
        "busybox 0 2/2 0:replied:None 1:replied:None",
    ),
    "busybox -q": (
        """\
PING 127.0.0.2 (127.0.0.2): 56 data bytes

--- 127.0.0.2 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 0.047/0.060/0.073 ms
""",
        "busybox 0 2/2 0:unprinted:None 1:unprinted:None",
    ),
    "toybox": (
        """\
Ping 127.0.0.1 (127.0.0.1): 56(84) bytes.
64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0 ms
64 bytes from 127.0.0.1: icmp_seq=2 ttl=64 time=0 ms

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss
round-trip min/avg/max = 0/0/0 ms
""",
        "toybox 1 2/2 1:replied:0 2:replied:0",
    ),
    "toybox -s 0 -I ADDRESS": (
        """\
Ping 127.0.0.1 (127.0.0.1) from 127.0.0.1 (127.0.0.1): 0(28) bytes.
8 bytes from 127.0.0.1: icmp_seq=1 ttl=64

--- 127.0.0.1 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss
round-trip min/avg/max = 11073/11073/11073 ms
""",
        "toybox 1 1/1 1:replied:None",
    ),
    "busybox ping6": (
        """\
PING ::1 (::1): 56 data bytes
64 bytes from ::1: seq=0 ttl=64 time=0.284 ms
64 bytes from ::1: seq=1 ttl=64 time=0.069 ms

--- ::1 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 0.069/0.176/0.284 ms
""",
        "busybox 0 2/2 0:replied:284000 1:replied:69000",
    ),
    "iputils -D -O": (
        """\
PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.
[1795756953.679887] 64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.027 ms
[1795756953.882520] 64 bytes from 127.0.0.1: icmp_seq=2 ttl=64 time=0.041 ms

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 203ms
rtt min/avg/max/mdev = 0.027/0.034/0.041/0.007 ms
""",
        "iputils 1 2/2 1:replied:27000 2:replied:41000",
    ),
    "iputils -v": (
        """\
ai->ai_family: AF_INET, ai->ai_canonname: '127.0.0.1'
PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.
64 bytes from 127.0.0.1: icmp_seq=1 ident=30637 ttl=64 time=0.039 ms
64 bytes from 127.0.0.1: icmp_seq=2 ident=30637 ttl=64 time=0.082 ms

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 204ms
rtt min/avg/max/mdev = 0.039/0.060/0.082/0.021 ms
ping: sock4.fd: 3 (socktype: SOCK_RAW), sock6.fd: 4 (socktype: SOCK_RAW), hints.ai_family: AF_UNSPEC

""",
        "iputils 1 2/2 1:replied:39000 2:replied:82000",
    ),
    "iputils -f": (
        """\
PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.
.\b \b.\b \b.\b \b
--- 127.0.0.1 ping statistics ---
3 packets transmitted, 3 received, 0% packet loss, time 0ms
rtt min/avg/max/mdev = 0.003/0.004/0.028/0.005 ms, ipg/ewma 0.010/0.005 ms
""",
        "iputils 1 3/3 1:unprinted:None 2:unprinted:None 3:unprinted:None",
    ),
    "iputils -R": (
        """\
PING 127.0.0.1 (127.0.0.1) 56(124) bytes of data.
64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.029 ms
RR: \t127.0.0.1
\t127.0.0.1
\t127.0.0.1
\t127.0.0.1

64 bytes from 127.0.0.1: icmp_seq=2 ttl=64 time=0.067 ms\t(same route)

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 207ms
rtt min/avg/max/mdev = 0.029/0.048/0.067/0.019 ms
""",
        "iputils 1 2/2 1:replied:29000 2:replied:67000",
    ),
    "iputils -T": (
        """\
PING 127.0.0.1 (127.0.0.1) 56(124) bytes of data.
64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.028 ms
TS: \t127.0.0.1\t19354847 absolute
\t127.0.0.1\t1
\t127.0.0.1\t0

--- 127.0.0.1 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 206ms
rtt min/avg/max/mdev = 0.028/0.036/0.045/0.008 ms
""",
        "iputils 1 1/1 1:replied:28000",
    ),
    "iputils -p": (
        """\
PATTERN: 0xff
PING localhost (127.0.0.1) 56(84) bytes of data.
64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.026 ms

--- localhost ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 202ms
rtt min/avg/max/mdev = 0.026/0.034/0.043/0.008 ms
""",
        "iputils 1 1/1 1:replied:26000",
    ),
    "iputils -I lo ::1": (
        """\
PING ::1(::1) from ::1 lo: 56 data bytes
64 bytes from ::1: icmp_seq=1 ttl=64 time=0.027 ms
64 bytes from ::1: icmp_seq=2 ttl=64 time=0.051 ms

--- ::1 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 1006ms
rtt min/avg/max/mdev = 0.027/0.039/0.051/0.012 ms
""",
        "iputils 1 2/2 1:replied:27000 2:replied:51000",
    ),
    "iputils unreachable": (
        """\
PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.
From 192.0.2.254 icmp_seq=1 Destination Port Unreachable
From 192.0.2.254 icmp_seq=2 Destination Port Unreachable

--- 192.0.2.1 ping statistics ---
2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 206ms

""",
        "iputils 1 2/0 1:error:None 2:error:None",
    ),
    "inetutils": (
        """\
PING 127.0.0.1 (127.0.0.1): 56 data bytes
64 bytes from 127.0.0.1: icmp_seq=0 ttl=64 time=0.048 ms
64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.022 ms
--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max/stddev = 0.022/0.035/0.048/0.000 ms
""",
        "inetutils 0 2/2 0:replied:48000 1:replied:22000",
    ),
    "inetutils -f": (
        """\
PING 127.0.0.1 (127.0.0.1): 56 data bytes
....--- 127.0.0.1 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max/stddev = 0.054/0.057/0.062/0.000 ms
""",
        "inetutils 0 2/2 0:unprinted:None 1:unprinted:None",
    ),
    "inetutils -v": (
        """\
PING 127.0.0.1 (127.0.0.1): 56 data bytes, id 0x046a = 1130
64 bytes from 127.0.0.1: icmp_seq=0 ttl=64 time=0.026 ms
--- 127.0.0.1 ping statistics ---
1 packets transmitted, 1 packets received, 0% packet loss
round-trip min/avg/max/stddev = 0.026/0.044/0.063/0.000 ms
""",
        "inetutils 0 1/1 0:replied:26000",
    ),
    "fping -D": (
        """\
[1795756957.26375] 127.0.0.1 : [0], 64 bytes, 0.054 ms (0.054 avg, 0% loss)
[1795756957.36389] 127.0.0.1 : [1], 64 bytes, 0.046 ms (0.050 avg, 0% loss)

127.0.0.1 : xmt/rcv/%loss = 2/2/0%, min/avg/max = 0.046/0.050/0.054
""",
        "fping 0 2/2 0:replied:54000 1:replied:46000",
    ),
    "fping -C 3": (
        """\
127.0.0.1 : [0], 64 bytes, 0.036 ms (0.036 avg, 0% loss)
127.0.0.1 : [1], 64 bytes, 0.036 ms (0.036 avg, 0% loss)
127.0.0.1 : [2], 64 bytes, 0.041 ms (0.038 avg, 0% loss)

127.0.0.1 : 0.036 0.036 0.041
""",
        "fping 0 3/3 0:replied:36000 1:replied:36000 2:replied:41000",
    ),
    "fping unreachable": (
        """\
192.0.2.1 : [0], timed out (NaN avg, 100% loss)
192.0.2.1 : [1], timed out (NaN avg, 100% loss)
ICMP Port Unreachable from 192.0.2.254 for ICMP Echo sent to 192.0.2.1

192.0.2.1 : xmt/rcv/%loss = 2/0/100%
""",
        "fping 0 2/0 0:unanswered:None 1:unanswered:None",
    ),
    "fping -s -o": (
        """\
127.0.0.1 : [0], 64 bytes, 0.036 ms (0.036 avg, 0% loss)

127.0.0.1 : xmt/rcv/%loss = 1/1/0%, outage(ms) = 0, min/avg/max = 0.036/0.039/0.042

       1 targets
       1 alive
       0 unreachable
       0 unknown addresses

       0 timeouts (waiting for response)
       1 ICMP Echos sent
       1 ICMP Echo Replies received
       0 other ICMP received

 0.036 ms (min round trip time)
 0.039 ms (avg round trip time)
 0.042 ms (max round trip time)
        0.100 sec (elapsed real time)

""",
        "fping 0 1/1 0:replied:36000",
    ),
    "fping -Q 1": (
        """\
[05:22:39]
127.0.0.1 : xmt/rcv/%loss = 1/1/0%, min/avg/max = 0.036/0.042/0.048
[05:22:40]
127.0.0.1 : xmt/rcv/%loss = 1/1/0%, min/avg/max = 0.014/0.023/0.047

127.0.0.1 : xmt/rcv/%loss = 3/3/0%, min/avg/max = 0.014/0.023/0.047
""",
        "fping 0 3/3 0:unprinted:None 1:unprinted:None 2:unprinted:None",
    ),
    "oping": (
        """\
PING 127.0.0.1 (127.0.0.1) 56 bytes of data.
56 bytes from 127.0.0.1 (127.0.0.1): icmp_seq=1 ttl=64 time=0.02 ms
echo reply from 127.0.0.1 (127.0.0.1): icmp_seq=2 timeout

--- 127.0.0.1 ping statistics ---
2 packets transmitted, 1 received, 50.00% packet loss, time 0.0ms
RTT[ms]: min = 0, median = 0, p(50) = 0, max = 0
""",
        "oping 1 2/1 1:replied:20000 2:unanswered:None",
    ),
}

WRITTEN: dict[str, tuple[str, str]] = {
    "macOS": (
        """\
PING 192.0.2.1 (192.0.2.1): 56 data bytes
64 bytes from 192.0.2.1: icmp_seq=0 ttl=117 time=13.345 ms
Request timeout for icmp_seq 1
64 bytes from 192.0.2.1: icmp_seq=2 ttl=117 time=1013.1 ms

--- 192.0.2.1 ping statistics ---
3 packets transmitted, 2 packets received, 33.3% packet loss
round-trip min/avg/max/stddev = 13.345/13.345/13.345/0.000 ms
""",
        "bsd 0 3/2 0:replied:13345000 1:unanswered:None 2:replied:1013100000",
    ),
    "iputils -j": (
        """\
{"bytes": 64, "host": "192.0.2.1", "seq": 1, "ttl": 64, "time": "0.027"}
{"bytes": 64, "host": "192.0.2.1", "seq": 3, "ttl": 64, "time": "12.3"}
{"host": "192.0.2.1", "transmitted": 3, "received": 2, "duplicates": 0, "corrupted": 0, \
"errors": 0, "loss": 33, "time": 206, "rtt": {"min": "0.027", "avg": "1", "max": "2", "mdev": "1"}}
""",
        "iputils 1 3/2 1:replied:27000 3:replied:12300000 2:unanswered:None",
    ),
    "fping -J -C": (
        """\
{"vSum": {"host": "192.0.2.1", "values": [0.153, null, 12.3]}}
""",
        "fping 0 3/2 0:replied:153000 1:unanswered:None 2:replied:12300000",
    ),
    "fping -J timeout": (
        """\
{"resp": {"host": "192.0.2.1", "seq": 0, "size": 64, "rtt": 0.153}}
{"timeout": {"host": "192.0.2.1", "seq": 1}}
{"summary": {"host": "192.0.2.1", "xmt": 2, "rcv": 1, "loss": 50}}
""",
        "fping 0 2/1 0:replied:153000 1:unanswered:None",
    ),
    "Go, go-ping": (
        """\
PING example.org (192.0.2.1):
32 bytes from 192.0.2.1: icmp_seq=0 time=999ns
32 bytes from 192.0.2.1: icmp_seq=1 time=1m2.5s
32 bytes from 192.0.2.1: icmp_seq=1 time=2.5ms ttl=64 (DUP!)

--- example.org ping statistics ---
2 packets transmitted, 2 packets received, 1 duplicates, 0% packet loss
round-trip min/avg/max/stddev = 1ms/1ms/1ms/0s
""",
        "go 0 2/2 0:replied:999 1:replied:62500000000 1:duplicate:2500000",
    ),
    "hping3": (
        """\
HPING 192.0.2.1 (eth0 192.0.2.1): icmp mode set, 28 headers + 0 data bytes
len=46 ip=192.0.2.1 ttl=64 id=2344 icmp_seq=0 rtt=0.1 ms
len=46 ip=192.0.2.1 ttl=64 id=2345 icmp_seq=1 rtt=7.3 ms

--- 192.0.2.1 hping statistic ---
2 packets tramitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 0.1/3.7/7.3 ms
""",
        "hping 0 2/2 0:replied:100000 1:replied:7300000",
    ),
    "fping duplicates, other address": (
        """\
192.0.2.1 : [0], 64 bytes, 0.153 ms (0.153 avg, 0% loss) [<- 192.0.2.9]
192.0.2.1 : [1], 64 bytes, 1.53 ms (0.153 avg, 0% loss)
192.0.2.1 : duplicate for [0], 64 bytes, 0.253 ms
192.0.2.1 : xmt/rcv/%loss = 2/2/0%, min/avg/max = 0.153/0.5/1.53
""",
        "fping 0 2/2 0:replied:153000 1:replied:1530000 0:duplicate:253000",
    ),
    "iputils, old": (
        """\
PING example.org (192.0.2.1) 56(84) bytes of data.
64 bytes from host.example (192.0.2.1): icmp_req=1 ttl=53 time=21.4 ms
64 bytes from host.example (192.0.2.1): icmp_req=2 ttl=53 time=9.75 ms (DUP!)

--- example.org ping statistics ---
2 packets transmitted, 1 received, +1 duplicates, 50% packet loss, time 1001ms
rtt min/avg/max/mdev = 9.75/9.75/9.75/0.000 ms
""",
        "iputils 1 2/1 1:replied:21400000 2:duplicate:9750000",
    ),
    "iputils -O, late": (
        """\
PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.
no answer yet for icmp_seq=1
no answer yet for icmp_seq=2
64 bytes from 192.0.2.1: icmp_seq=1 ttl=63 time=1500 ms
64 bytes from 192.0.2.1: icmp_seq=3 ttl=63 time=0.100 ms
64 bytes from 192.0.2.1: icmp_seq=3 ttl=63 time=0.200 ms

--- 192.0.2.1 ping statistics ---
3 packets transmitted, 2 received, +1 duplicates, 33.3333% packet loss, time 2001ms
rtt min/avg/max/mdev = 0.1/0.1/0.1/0.000 ms, pipe 2
""",
        "iputils 1 3/2 1:replied:1500000000 2:unanswered:None 3:replied:100000 3:duplicate:200000",
    ),
    "iputils in French": (
        """\
PING 192.0.2.1 (192.0.2.1) 56(84) octets de données.
64 octets de 192.0.2.1 : icmp_seq=1 ttl=63 temps=0.153 ms
De 192.0.2.254 icmp_seq=2 Hôte inaccessible
encore aucune réponse pour icmp_seq=3

--- statistiques ping 192.0.2.1 ---
3 paquets transmis, 1 reçus, +1 erreurs, 66.6667 % paquets perdus, temps 1001 ms
rtt min/moy/max/mdev = 0.153/0.153/0.153/0.000 ms
""",
        "iputils 1 3/1 1:replied:153000 2:error:None 3:unanswered:None",
    ),
    "iputils in Japanese": (
        """\
PING 127.0.0.1 (127.0.0.1) 56(84) バイトのデータ
64 バイト応答 送信元 127.0.0.1: icmp_seq=1 ttl=64 時間=0.027 ミリ秒

--- 127.0.0.1 ping 統計 ---
送信パケット数 1, 受信パケット数 1, パケット損失 0%, 時間 0ミリ秒
rtt 最小/平均/最大/mdev = 0.027/0.027/0.027/0.000ミリ秒
""",
        "iputils 1 1/1 1:replied:27000",
    ),
    "iputils in Ukrainian": (
        """\
ПІНГ 192.0.2.1 (192.0.2.1) 56(84) байтів даних.
64 байтів від 192.0.2.1: icmp_seq=1 ttl=63 час=0.153 мс

--- Статистика пінгування 192.0.2.1 ---
Надіслано 1 пакетів, отримано 1, втрачено 0% пакетів, час 0мс
rtt min/avg/max/mdev = 0.153/0.153/0.153/0.000 мс
""",
        "iputils 1 1/1 1:replied:153000",
    ),
    "iputils in Turkish": (
        """\
PING 192.0.2.1 (192.0.2.1) 56(84) bayt veri.
64 bayt veri 192.0.2.1'den: icmp_seq=1 ttl=63 zaman=0.153 ms

--- 192.0.2.1 ping istatistikleri ---
1 paket iletildi, 1 alındı, %0 paket kaybı, zaman 0ms
rtt min/avg/max/mdev = 0.153/0.153/0.153/0.000 ms
""",
        "iputils 1 1/1 1:replied:153000",
    ),
    "iputils in Czech": (
        """\
PING 192.0.2.1 (192.0.2.1) 56 (84) datových bajtů.
64 bajtů z 192.0.2.1: pořadí=1 TTL=63 čas=0.153 ms

--- Statistika pingů na 192.0.2.1 ---
1 paketů odesláno, 1 přijato, 0% ztráta paketů, čas 0 ms
rtt min/avg/max/mdev = 0.153/0.153/0.153/0.000 ms
""",
        "iputils 1 1/1 1:replied:153000",
    ),
}
