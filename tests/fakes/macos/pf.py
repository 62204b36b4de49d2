"""The packet filter behind the stand-in for pfctl(8): the part of its language that is used here (OpenBSD 4.1), the form
in which it tells rules, and what of it is in force.

State is kept in `pf`: whether the filter is on, the tokens that keep it on, the main ruleset as it is told, and anchors
with their rules and tables. What is in force is a table `inet standin` of nftables in the caller's network namespace:
as on a Mac, an anchor that the main ruleset does not ask is loaded, shown and counted, and nothing comes of it.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import subprocess

from standin import STATE, load, save

HOOK = 'anchor "com.apple/*" all'
STOCK = [
    'scrub-anchor "com.apple/*" all fragment reassemble',
    'scrub-anchor "com.apple.internet-sharing" all fragment reassemble',
    HOOK,
    'anchor "com.apple.internet-sharing" all',
]
EMPTY = {"rules": [], "tables": {}}
# Rules are told with the names of services, so that nobody can compare them with what was written.
SERVICES = {"22": "ssh", "53": "domain", "80": "http", "443": "https"}
NFT = "/usr/sbin/nft"

ADDRESS = r"[0-9a-f.:]+(?:/\d+)?"
ITEM = r"(?:\{{ (?:{0} )+\}}|{0})"
RULE = re.compile(
    r"(?P<action>block(?: return| drop)?|pass)(?P<way> in| out)?(?P<log> log)?(?P<quick> quick)?(?P<on> on \w+)?"
    r"(?P<family> inet6?)?(?: proto (?P<proto>" + ITEM.format(r"(?:tcp|udp)") + r"))?"
    r"(?: all| from any to (?P<to>any|<\w+>|" + ITEM.format(ADDRESS) + r")"
    r"(?: port (?P<port>" + ITEM.format(r"\d+(?::\d+)?") + r"))?)"
    r"(?: user (?P<user>\w+))?(?P<state> no state| keep state)?(?P<label> label \"[^\"]+\")?"
)
TABLE = re.compile(r"table <(?P<name>[a-z]\w{0,30})>(?P<const> const)? \{ (?P<nets>(?:" + ADDRESS + r" )*)\}")


class Refused(Exception):
    """A text that is not loaded."""


def items(text):
    return [None] if text is None else text.strip("{} ").split()


def shown(net):
    """An entry of a table as it is shown."""
    found = ipaddress.ip_network(net, strict=False)
    return str(found.network_address if found.prefixlen == found.max_prefixlen else found)


def rules_of(found):
    """The rules that one line stands for: one for each protocol, address and port."""
    user = found["user"]
    if user is not None and not user.isdigit():
        raise Refused(f"unknown user {user}")
    for proto in items(found["proto"]):
        for to in items(found["to"]):
            for port in items(found["port"]):
                rule = {**found, "proto": proto, "to": None if to == "any" else to, "port": port}
                if rule["to"] and to[0] != "<":
                    ipaddress.ip_network(to, strict=False)
                    rule["family"] = " inet6" if ":" in to else " inet"
                yield rule


def read(text):
    """Rules and tables of a text, or nothing of it: `Refused`."""
    rules, tables = [], {}
    for number, line in enumerate(text.splitlines(), 1):
        line = " ".join(line.split("#")[0].replace(",", " ").split())
        rule, table = RULE.fullmatch(line), TABLE.fullmatch(line)
        try:
            if rule:
                rules.extend(rules_of(rule.groupdict()))
            elif table:
                nets = [shown(net) for net in items(table["nets"])]
                tables[table["name"]] = {"const": bool(table["const"]), "nets": nets}
            elif line:
                raise Refused("syntax error")
        except (Refused, ValueError) as error:
            raise Refused(f"stdin:{number}: {error}") from error
    return {"rules": rules, "tables": tables}


def port_told(port):
    return f" port {port}" if ":" in port else f" port = {SERVICES.get(port, port)}"


def told(rule):
    """A rule as both `-nv` and `-s rules` print it."""
    action = "block drop" if rule["action"] == "block" else rule["action"]
    text = action + "".join(rule[part] or "" for part in ("way", "log", "quick", "on", "family"))
    text += f" proto {rule['proto']}" if rule["proto"] else ""
    if rule["to"] is None and rule["port"] is None:
        text += " all"
    else:
        text += f" from any to {rule['to'] or 'any'}" + (port_told(rule["port"]) if rule["port"] else "")
    text += f" user = {rule['user']}" if rule["user"] else ""
    if action == "pass":
        text += " no state" if rule["state"] == " no state" else " flags S/SA keep state"
    return text + (rule["label"] or "")


def table_told(name, table):
    return f"table <{name}>{' const' if table['const'] else ''} {{ {' '.join(table['nets'])} }}"


def is_asked(pf):
    """Whether packets get to the anchors below com.apple."""
    if not pf["on"] or HOOK not in pf["main"]:
        return False
    return not any(" quick" in rule for rule in pf["main"][: pf["main"].index(HOOK)])


def counter(anchor, number):
    """The name of the counter of a rule."""
    return f"of.{anchor.rpartition('/')[2]}.{number}"


def in_force(pf):
    """Rules that packets meet, in the order in which they decide, with the tables they mean and their counter's name."""
    if not is_asked(pf):
        return []
    rules = []
    # Children of com.apple and no further down, by name.
    for name in sorted(anchor for anchor in pf["anchors"] if re.fullmatch(r"com\.apple/[^/]+", anchor)):
        anchor = pf["anchors"][name]
        for number, rule in enumerate(anchor["rules"]):
            rules.append((rule, anchor["tables"], counter(name, number)))
    # The last that matches decides, but for `quick`.
    return [r for r in rules if r[0]["quick"]] + [r for r in reversed(rules) if not r[0]["quick"]]


def destinations(rule, tables):
    """How nftables says where a rule applies: one text for each family."""
    if rule["to"] is None:
        return [{None: "", " inet": "meta nfproto ipv4 ", " inet6": "meta nfproto ipv6 "}[rule["family"]]]
    nets = [rule["to"]]
    if rule["to"].startswith("<"):
        nets = tables.get(rule["to"].strip("<>"), {"nets": []})["nets"]
    texts = []
    for word, mark in (("ip", "."), ("ip6", ":")):
        own = [net for net in nets if (":" in net) == (mark == ":")]
        inside = [net for net in own if not net.startswith("!")]
        outside = [net[1:] for net in own if net.startswith("!")]
        but = f"{word} daddr != {{ {', '.join(outside)} }} " if outside else ""
        if inside:
            texts.append(f"{word} daddr {{ {', '.join(inside)} }} {but}")
    return texts


def enforce(pf):
    """Puts into force what the state says."""
    counters, lines = [], []
    for rule, tables, name in in_force(pf):
        if rule["way"] == " in":
            continue
        counters.append(f"counter {name} {{ }}")
        match = 'oifname "lo" ' if rule["on"] else ""
        for to in destinations(rule, tables):
            text = match + to
            text += f"meta l4proto {rule['proto']} " if rule["proto"] else ""
            text += f"th dport {rule['port'].replace(':', '-')} " if rule["port"] else ""
            text += f"meta skuid {rule['user']} " if rule["user"] else ""
            text += f"counter name {name} "
            returns = "reject with tcp reset" if rule["proto"] == "tcp" else "reject"
            lines.append(text + {"pass": "accept", "block return": returns}.get(rule["action"], "drop"))
    if lines and pf["skips"]:
        lines.insert(0, 'oifname "lo" accept')
    text = "table inet standin\ndelete table inet standin\n"
    if lines:
        chain = "chain output { type filter hook output priority 0;\n" + "\n".join(lines) + "\n}"
        text += "table inet standin {\n" + "\n".join(counters) + f"\n{chain}\n}}\n"
    # Where there is nothing to change, nothing is: changes are told to everybody who listens.
    if lines or pf["enforced"]:
        subprocess.run([NFT, "-f", "-"], input=text, text=True, check=True)
    pf["enforced"] = bool(lines)


def packets():
    """How many packets met each rule, by the name of its counter."""
    command = [NFT, "-j", "list", "counters", "table", "inet", "standin"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(listed.stdout)["nftables"] if listed.returncode == 0 else []
    return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in found if "counter" in entry}


@contextlib.contextmanager
def changing():
    """The state, to be changed; in force when this ends."""
    with open(os.path.join(STATE, "pf.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pf = asked()
        yield pf
        enforce(pf)
        save("pf", pf)


def asked():
    """The state, as it is."""
    return load("pf", {"on": False, "tokens": [], "main": STOCK, "anchors": {}, "skips": False, "enforced": False})
