// Package docker runs containers through a Docker engine on this machine. It
// owns the translation of a runtime.ContainerSpec into the engine's own terms,
// the pull of images, the namespaces' networks, and the reconciliation of what
// the engine says with what launchers left on disk.
//
// The engine is reached through runtime/docker/dockerapi alone, and nothing is
// created that runtime/docker/policy has not let through. It must not import
// anything above runtime.
//
// # What is believed
//
// A wait on a container that was removed returns success, a start of one that
// has exited runs it again, and a container killed for memory may show exit code
// 0. So the engine's word alone never means success:
//
//	exit record there                     Exited, with the record
//	no record, engine says created        Created; ContainerCannotRun after a start that failed
//	no record, engine says running        Waiting or Running, as the launcher says
//	no record, engine says exited or gone Lost: it failed, nobody knows more
package docker
