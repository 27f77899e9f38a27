// A stand-in for NVIDIA's library, built by the tests: two devices and only the
// calls that every driver has. With -DFULL it has some of the optional ones, and
// reports a fault; with -DHANG counting the devices never returns.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include "nvml.h"

static char first, second;

static int number(nvmlDevice_t d) { return d.handle == &second; }

nvmlReturn_t nvmlInit_v2(void) { return NVML_SUCCESS; }
nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }
const char *nvmlErrorString(nvmlReturn_t r) { return r == NVML_ERROR_INVALID_ARGUMENT ? "Invalid Argument" : "Some Error"; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
#ifdef HANG
  for (;;) pause();
#endif
  *count = 2;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d) {
  if (i > 1) return NVML_ERROR_INVALID_ARGUMENT;
  d->handle = (void *)(i ? &second : &first);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *uuid, unsigned int n) {
  snprintf(uuid, n, "GPU-00000000-0000-0000-0000-%012d", number(d));
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *name, unsigned int n) {
  (void)d;
  snprintf(name, n, "Stand-in GPU");
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t d, unsigned int *i) {
  *i = number(d);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *p) {
  memset(p, 0, sizeof *p);
  snprintf(p->busId, sizeof p->busId, "00000000:%02X:00.0", 10 + number(d));
  return NVML_SUCCESS;
}

#ifdef FULL
nvmlReturn_t nvmlSystemGetDriverVersion(char *v, unsigned int n) {
  snprintf(v, n, "999.01");
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m) {
  m->total = 16ull << 30;
  m->used = (unsigned long long)number(d) << 30;
  m->free = m->total - m->used;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuTopologyLevel_t *level) {
  (void)a, (void)b;
  *level = NVML_TOPOLOGY_HOSTBRIDGE;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
  set->handle = (void *)&first;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  (void)set;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t d, unsigned long long *types) {
  (void)d;
  *types = nvmlEventTypeXidCriticalError;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set) {
  (void)d, (void)types, (void)set;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int ms) {
  static int reported;
  (void)set;
  if (reported) {
    usleep(ms * 1000);
    return NVML_ERROR_TIMEOUT;
  }
  reported = 1;
  memset(data, 0, sizeof *data);
  data->device.handle = (void *)&second;
  data->eventType = nvmlEventTypeXidCriticalError;
  data->eventData = 79;
  return NVML_SUCCESS;
}
#endif
