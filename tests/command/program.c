/* A program for hata exec to look at: shared, static, or with a function of ggml in it. */
#include <stdlib.h>
#include <string.h>

#ifdef OWN_GGML
void ggml_backend_sched_graph_compute_async(void) {}
#endif

/* Exit status 7 where the host was loaded and has its options, else 8. */
int main(void) {
  const char* preload = getenv("LD_PRELOAD");
  const char* options = getenv("HATA_OPTIONS");
  return preload && strstr(preload, "libhata-ggml.so") && options && strstr(options, "budget=99")
             ? 7
             : 8;
}
