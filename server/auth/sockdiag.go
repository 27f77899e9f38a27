package auth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The kernel's socket listing, as uapi/linux/sock_diag.h and inet_diag.h have it.
const (
	sockDiagByFamily = 20
	inetDiagReqLen   = 56 // struct inet_diag_req_v2
	inetDiagMsgLen   = 72 // struct inet_diag_msg
	tcpEstablished   = 1
	// noCookie asks for a socket by its addresses alone.
	noCookie = 0xffffffff
)

// errNoSocket says that the kernel lists no established socket of these addresses.
var errNoSocket = errors.New("the kernel lists no open socket of the caller on this machine")

// socketOwner is whom the kernel lists a socket for.
type socketOwner struct {
	uid   uint32
	inode uint32
}

// ownerOf asks the kernel for the one established TCP socket whose own address
// is local and whose other end is remote, in this process's network namespace.
// IPv4 addresses may be mapped into IPv6. It returns errNoSocket where there is
// none, and never the socket of a listener, which the kernel falls back to.
func ownerOf(local, remote netip.AddrPort) (socketOwner, error) {
	reply, err := askDiag(diagRequest(local, remote))
	if err != nil {
		return socketOwner{}, fmt.Errorf("look a connection up: %w", err)
	}
	owner, err := parseDiag(reply, local, remote)
	if err != nil {
		return socketOwner{}, fmt.Errorf("look a connection up: %w", err)
	}
	return owner, nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// diagRequest is a whole netlink message. An IPv4 connection is asked for as
// one whatever the family of its sockets: the kernel keeps them in one table.
func diagRequest(local, remote netip.AddrPort) []byte {
	local, remote = unmapped(local), unmapped(remote)
	message := make([]byte, unix.SizeofNlMsghdr+inetDiagReqLen)
	native := binary.NativeEndian
	native.PutUint32(message[0:], uint32(len(message)))
	native.PutUint16(message[4:], sockDiagByFamily)
	native.PutUint16(message[6:], unix.NLM_F_REQUEST)
	req := message[unix.SizeofNlMsghdr:]
	req[0] = unix.AF_INET6
	if local.Addr().Is4() {
		req[0] = unix.AF_INET
	}
	req[1] = unix.IPPROTO_TCP
	native.PutUint32(req[4:], 1<<tcpEstablished)
	binary.BigEndian.PutUint16(req[8:], local.Port())
	binary.BigEndian.PutUint16(req[10:], remote.Port())
	copy(req[12:28], local.Addr().AsSlice())
	copy(req[28:44], remote.Addr().AsSlice())
	native.PutUint32(req[48:], noCookie)
	native.PutUint32(req[52:], noCookie)
	return message
}

// askDiag sends one request and reads its one reply.
func askDiag(request []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buffer := make([]byte, 8<<10)
	for {
		// The kernel answers while it is asked: there is nothing to wait for.
		n, from, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 {
			return buffer[:n], nil
		}
	}
}

// parseDiag reads a reply and holds it to what was asked for.
func parseDiag(reply []byte, local, remote netip.AddrPort) (socketOwner, error) {
	native := binary.NativeEndian
	if len(reply) < unix.SizeofNlMsghdr+4 {
		return socketOwner{}, errors.New("the kernel's reply is too short")
	}
	body := reply[unix.SizeofNlMsghdr:]
	if native.Uint16(reply[4:]) == unix.NLMSG_ERROR {
		if errno := unix.Errno(-int32(native.Uint32(body))); errno != unix.ENOENT {
			return socketOwner{}, errno
		}
		return socketOwner{}, errNoSocket
	}
	if native.Uint16(reply[4:]) != sockDiagByFamily || len(body) < inetDiagMsgLen {
		return socketOwner{}, errors.New("the kernel's reply is no socket")
	}
	address := func(at int) netip.Addr {
		if body[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(body[at : at+4]))
		}
		return netip.AddrFrom16([16]byte(body[at : at+16])).Unmap()
	}
	gotLocal := netip.AddrPortFrom(address(8), binary.BigEndian.Uint16(body[4:]))
	gotRemote := netip.AddrPortFrom(address(24), binary.BigEndian.Uint16(body[6:]))
	if body[1] != tcpEstablished || gotLocal != unmapped(local) || gotRemote != unmapped(remote) {
		return socketOwner{}, errNoSocket
	}
	owner := socketOwner{uid: native.Uint32(body[64:]), inode: native.Uint32(body[68:])}
	if owner.inode == 0 {
		// Its process has closed it, and root is what the kernel says then.
		return socketOwner{}, errNoSocket
	}
	return owner, nil
}
