// Package launch is the contract between the daemon and the launcher, the first
// process of every container: the layout of a pod's folder, the messages on the
// launcher's socket, the exit record and the log files.
//
// The launcher links this package, so it imports the standard library only. The
// daemon's side lives in runtime/launch/host.
//
// # A pod's folder
//
//	<state>/pods/<pod uid>/            0711, in a 0700 parent
//	    <container>/                   the control folder, one for each container
//	        config.json                written by the daemon before the container exists
//	        command.json               the command, where it came by disk
//	        lock                       held (flock) by the launcher while it lives; tells what it
//	                                   started, and becomes exit.json
//	        s                          the launcher's unix socket, 0666
//	        held.json                  how the command failed, while its container is kept
//	        exit.json                  the exit record in its last line, there by rename
//	        log.0, log.1 …             the command's output (see LogEntry)
//
// Everything in it is hostile to the daemon once a command has run: it is read
// through runtime/launch/host alone, which follows no link and opens only
// regular files.
//
// # The conversation
//
// The launcher listens, the daemon dials (again, after a restart). Frames are
// one JSON object a line, at most MaxFrame bytes. The launcher speaks first:
//
//	launcher → Hello{version, phase}
//	daemon   → Launch{command}            (phase waiting; a repeat is a no-op)
//	launcher → Started{commandID, pid, at}
//	daemon   → Signal{number} | Stop{grace}
//	launcher → Held{exitCode, until}      (where the command asks for it and has failed)
//	launcher → Exited{record}             (after the record is on disk)
//	daemon   → Exec{argv} + 3 descriptors (a connection of its own)
//	launcher → Execed{code}
//
// A launcher that serves one container after another (KeepArg) hears the same
// over the socket that it was born with: who it serves next, and the command. It
// listens in the folder of each, too, for whoever comes later.
//
// A daemon that comes back dials and reads the same: Hello tells the phase,
// Started, Held and Exited are repeated to every new connection.
package launch
