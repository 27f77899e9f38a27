// Package process runs containers as plain processes of this machine, where no
// container engine is reachable: one launcher for each, in a session, control
// group and namespaces of its own as far as the machine allows. What was
// possible is found out by doing it once, and shown (Capabilities).
//
// A launcher outlives the daemon, which only dials it. Everything the backend
// knows about a container lies in a folder:
//
//	STATE/process/           0700
//	    <name>/
//	        spec.json        what Create was given
//	        spawned.json     the launcher's process, once there was one
//	        launcher.log     what the launcher itself had to complain about
//	        tmp/             the container's /tmp
//	        root/            where its new root is assembled
//	        layer/           what it wrote over its environment
//	STATE/envs/              Python environments (see environment.go)
//	STATE/volumes/           the directories behind claims
//
// There are no images: a reference is matched to a host interpreter by rule, and
// one that no rule knows is refused, never run on the host silently.
//
// It imports runtime and the launcher's host side, and no other backend.
package process
