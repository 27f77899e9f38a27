// Package listen makes the sockets that the server answers on: one TCP port
// that speaks plain HTTP and HTTPS, the unix socket in the state folder, and the
// certificate authority behind the former.
//
// It knows nothing of routes or objects and must not import the rest of server.
package listen
