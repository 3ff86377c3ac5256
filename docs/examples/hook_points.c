// Reads a hook point with ONNX Runtime's C API: cc hook_points.c -lonnxruntime -o hook_points && ./hook_points BUNDLE
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

// Of the model that ships; those of another bundle are in its genai_config.json.
enum { LAYERS = 5, HEADS = 4, WIDTH = 64, TOKENS = 4, INPUTS = 3 + 2 * LAYERS };

static const OrtApi *api;

static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", api->GetErrorMessage(status));
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: hook_points BUNDLE\n"), 2;
  api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == NULL) return fprintf(stderr, "the library is older than the header\n"), 1;
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtMemoryInfo *memory;
  char path[4096];
  snprintf(path, sizeof path, "%s/onnx/model_hooks.onnx", argv[1]);
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "example", &env));
  check(api->CreateSessionOptions(&options));
  check(api->CreateSession(env, path, options, &session));  // which finds the weights beside the graph
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

  int64_t ids[] = {2899, 2759, 258, 728};  // "Once upon a time"
  int64_t mask[] = {1, 1, 1, 1}, positions[] = {0, 1, 2, 3}, shape[] = {1, TOKENS};
  int64_t *integers[] = {ids, mask, positions};
  const char *names[INPUTS] = {"input_ids", "attention_mask", "position_ids"};
  char cached[2 * LAYERS][40];
  const OrtValue *inputs[INPUTS];
  for (int n = 0; n < 3; n++) {
    OrtValue *value;
    check(api->CreateTensorWithDataAsOrtValue(memory, integers[n], sizeof ids, shape, 2,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value));
    inputs[n] = value;
  }
  int64_t empty[] = {1, HEADS, 0, WIDTH};  // keys and values of no earlier positions
  float nothing[1];
  for (int n = 0; n < 2 * LAYERS; n++) {
    OrtValue *value;
    snprintf(cached[n], sizeof cached[n], "past_key_values.%d.%s", n / 2, n % 2 ? "value" : "key");
    check(api->CreateTensorWithDataAsOrtValue(memory, nothing, 0, empty, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                              &value));
    names[3 + n] = cached[n];
    inputs[3 + n] = value;
  }

  const char *wanted[] = {"logits", "blocks.0.attn.hook_pattern"};
  OrtValue *outputs[2] = {NULL, NULL};
  check(api->Run(session, NULL, names, inputs, INPUTS, wanted, 2, outputs));

  float *logits, *pattern;
  OrtTensorTypeAndShapeInfo *described;
  int64_t sizes[4];
  check(api->GetTensorMutableData(outputs[1], (void **)&pattern));
  check(api->GetTensorTypeAndShape(outputs[1], &described));
  check(api->GetDimensions(described, sizes, 4));
  printf("shape %d %d %d %d\n", (int)sizes[0], (int)sizes[1], (int)sizes[2], (int)sizes[3]);
  printf("head 0, last token");
  for (int key = 0; key < TOKENS; key++) printf(" %.4f", pattern[(TOKENS - 1) * TOKENS + key]);

  check(api->GetTensorMutableData(outputs[0], (void **)&logits));
  api->ReleaseTensorTypeAndShapeInfo(described);
  check(api->GetTensorTypeAndShape(outputs[0], &described));
  check(api->GetDimensions(described, sizes, 3));
  float *last = logits + (TOKENS - 1) * sizes[2];
  int best = 0;
  for (int token = 1; token < sizes[2]; token++) best = last[token] > last[best] ? token : best;
  printf("\nnext token %d\n", best);

  api->ReleaseTensorTypeAndShapeInfo(described);
  for (int n = 0; n < 2; n++) api->ReleaseValue(outputs[n]);
  for (int n = 0; n < INPUTS; n++) api->ReleaseValue((OrtValue *)inputs[n]);
  api->ReleaseMemoryInfo(memory);
  api->ReleaseSession(session);
  api->ReleaseSessionOptions(options);
  api->ReleaseEnv(env);
  return 0;
}
