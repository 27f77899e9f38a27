// Package runtime declares how skiff makes things run: the Backend interface
// that Docker, the embedded process runtime and any plugin implement, and the
// plain data that crosses it. One conformance suite, runtimetest, holds every
// implementation to the same contract.
//
// A backend runs one container at a time; what makes several of them a pod is
// engine/pod's business. Backends decide nothing about who runs when.
package runtime
