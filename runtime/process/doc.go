// Package process runs containers as plain processes of this machine, where no
// container engine is reachable: below a launcher, in a session, control group
// and namespaces of their own as far as the machine allows. What was possible is
// found out by doing it once, and shown (Capabilities).
//
// Where it can, a launcher serves one container of a namespace after another
// (keeper.go), which makes a small step cheap; the others have one each. A
// launcher with a container outlives the daemon, which dials it again. What the
// backend knows about a container lies on disk:
//
//	STATE/process/           0700
//	    <name>.json          what Create was given
//	    <name>/              what some containers need beside it:
//	        layer/           what it wrote over its environment
//	        spawned.json     its own launcher's process, once there was one
//	        launcher.log     what that had to complain about
//	        tmp/             the container's /tmp
//	STATE/kept/<keeper>/     /tmp of the containers that a kept launcher serves
//	STATE/envs/              Python environments (see environment.go)
//	STATE/volumes/           the directories behind claims
//
// There are no images: a reference is matched to a host interpreter by rule, and
// one that no rule knows is refused, never run on the host silently.
//
// It imports runtime and the launcher's host side, and no other backend.
package process
