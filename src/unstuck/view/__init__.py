"""Runs as they grow, served to a browser on this machine.

| file | holds |
|---|---|
| server | the socket, the event loop, the browser; `serve` |
| app | which address gives what |
| guard | who may ask for what: before all of it |
| runs | which runs there are, and what state each is in |
| pages | the pages, made when they are asked for and kept while nothing changes |
| news | tells a page that listens that its run has changed |
| desk | the threads in which records are read, judged and drawn |

Records are read, nothing is ever written. Drawing is the room `report`'s: the page of a run is the one that `unstuck run --html`
writes, with a bar above it and a script that fetches it anew.
"""
