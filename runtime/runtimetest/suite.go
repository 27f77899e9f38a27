package runtimetest

import "testing"

// need is what a test asks of the harness beyond a Backend.
type need int

const (
	anything  need = iota
	processes      // real commands
	restarts       // a second Backend on the same state
)

// Run holds a backend to the contract. newHarness gives each test a state of its own.
func Run(t *testing.T, newHarness func(t *testing.T) *Harness) {
	for _, tt := range []struct {
		name string
		need need
		test func(*fixture)
	}{
		{"Inventory", anything, testInventory},
		{"PrepareImage", anything, testPrepareImage},
		{"CreateIsIdempotent", anything, testCreateIsIdempotent},
		{"CreateAtOnce", anything, testCreateAtOnce},
		{"UnknownIDs", anything, testUnknownIDs},
		{"StartTwice", anything, testStartTwice},
		{"ExitedNeverRunsAgain", anything, testExitedNeverRunsAgain},
		{"LaunchOnce", anything, testLaunchOnce},
		{"LaunchOtherCommand", anything, testLaunchOtherCommand},
		{"Outputs", anything, testOutputs},
		{"ExitCodes", anything, testExitCodes},
		{"States", anything, testStates},
		{"WatchReplays", anything, testWatchReplays},
		{"List", anything, testList},
		{"StopRunning", anything, testStopRunning},
		{"StopGatedIsNeverSuccess", anything, testStopGated},
		{"StopCreated", anything, testStopCreated},
		{"RemoveKeepsPodDir", anything, testRemove},
		{"EnsureVolume", anything, testEnsureVolume},
		{"RemoveVolume", anything, testRemoveVolume},
		{"LogOfOneLine", anything, testLogOfOneLine},
		{"Lost", anything, testLost},
		{"AdoptRunning", restarts, testAdoptRunning},
		{"AdoptGated", restarts, testAdoptGated},
		{"AdoptExitedWhileAway", restarts, testAdoptExited},
		{"AdoptLostWhileAway", restarts, testAdoptLost},
		{"AdoptCreated", restarts, testAdoptCreated},
		{"Hold", restarts, testHold},
		{"HoldEnds", anything, testHoldEnds},

		{"CannotRun", processes, testCannotRun},
		{"HoldOfWhatCannotRun", processes, testHoldCannotRun},
		{"EndedBySignal", processes, testEndedBySignal},
		{"OutputsAreFilesOnly", processes, testOutputsAreFilesOnly},
		{"EnvironmentAndFolders", processes, testEnvironment},
		{"Mounts", processes, testMounts},
		{"User", processes, testUser},
		{"Hostname", processes, testHostname},
		{"NothingOutlivesTheRecord", processes, testNothingOutlives},
		{"StopGrace", processes, testStopGrace},
		{"StopFromOutside", processes, testStopFromOutside},
		{"LogOrderAndBytes", processes, testLogBytes},
		{"LogCap", processes, testLogCap},
		{"MemoryLimit", processes, testMemoryLimit},
		{"PidsLimit", processes, testPidsLimit},
		{"Exec", processes, testExec},
		{"ExecTTY", processes, testExecTTY},
		{"Dial", processes, testDial},
		{"Stats", processes, testStats},
		{"DevicesOnlyByGrant", processes, testDevices},
		{"NoNewPrivileges", processes, testNoNewPrivileges},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			if tt.need == processes && !h.Processes {
				t.Skip("this backend has no processes")
			}
			if tt.need == restarts && h.Restart == nil {
				t.Skip("this backend has no state to come back to")
			}
			tt.test(newFixture(t, h))
		})
	}
}
