// Package host is the daemon's side of the launcher's contract (runtime/launch):
// it prepares control folders, dials launchers, follows them to their exit
// record, and reads what they left.
//
// Everything in a control folder is hostile once a command has run. Each read
// opens beneath the folder, follows no link, waits for nothing, takes regular
// files with one name only, and is bounded; the socket is checked to be a
// socket, and dialled by the very inode that was checked. No other package
// reads below a pod's folder by itself.
//
// It knows no backend and must not import one.
package host
