// Vulkan headers before 1.3.272 (Debian 12 has 1.3.239) lack VK_EXT_layer_settings, which ggml-vulkan.cpp names in its
// set-up of the validation layers. Declared here as the registry gives it, so that llama.cpp builds unpatched.
#pragma once

#include_next <vulkan/vulkan.hpp>

#ifndef VK_EXT_layer_settings
#define VK_EXT_layer_settings 1

namespace vk {

enum class LayerSettingTypeEXT { eBool32, eInt32, eInt64, eUint32, eUint64, eFloat32, eFloat64, eString };

struct LayerSettingEXT {
    const char *        pLayerName   = nullptr;
    const char *        pSettingName = nullptr;
    LayerSettingTypeEXT type         = LayerSettingTypeEXT::eBool32;
    uint32_t            valueCount   = 0;
    const void *        pValues      = nullptr;
};

struct LayerSettingsCreateInfoEXT {
    VkStructureType         sType        = static_cast<VkStructureType>(1000496000);
    const void *            pNext        = nullptr;
    uint32_t                settingCount = 0;
    const LayerSettingEXT * pSettings    = nullptr;

    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & settings)
        : settingCount(static_cast<uint32_t>(settings.size())), pSettings(settings.data()) {}
};

}  // namespace vk
#endif
